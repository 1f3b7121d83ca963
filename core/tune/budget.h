// The time of a search: what is left of it, and how much of that may be spent on the next measurement.
#pragma once

#include <algorithm>
#include <chrono>
#include <functional>

#include "core/base/clock.h"

namespace apr {

// The time that there is, less what the measurements at the end will take: they decide what is kept.
class Budget {
 public:
  Budget(double seconds, std::function<bool()> stop)
      : seconds_(seconds),
        end_(Clock::now() +
             std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds))),
        stop_(std::move(stop)) {}

  double to_end() const { return std::chrono::duration<double>(end_ - Clock::now()).count(); }
  double left() const { return to_end() - reserved; }
  // Someone wants the search to end now: nothing more is measured, the last measurements neither.
  bool stopped() const { return stop_ && stop_(); }
  bool over() const { return stopped() || left() <= 0; }
  double tolerance() const { return 0.05 * seconds_; }

  // The most that one call of the backend should take, in seconds: nothing can end it, so it is what the search ends too
  // late when the machine is busier than it was, and what a person who presses Ctrl-C waits.
  double longest_call() const { return std::clamp(0.05 * seconds_, 1.0, 5.0); }

  double reserved = 0;
  double first_look = 0;  // seconds that the last demand took for its first measurement

 private:
  double seconds_;
  Clock::time_point end_;
  std::function<bool()> stop_;
};

}  // namespace apr
