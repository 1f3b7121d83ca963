// Ctrl-C as a question, not an end: while a guard lives, the signals that it names are noted and the work that asks
// raised() decides how to stop.
#pragma once

#include <initializer_list>
#include <utility>
#include <vector>

namespace apr::ctl {

class InterruptGuard {
 public:
  // One guard at a time.
  explicit InterruptGuard(std::initializer_list<int> signals);
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;
  static bool raised();

 private:
  std::vector<std::pair<int, void (*)(int)>> before_;
};

}  // namespace apr::ctl
