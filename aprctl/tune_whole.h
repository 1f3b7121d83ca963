// Whole steps of a model with and without a profile. Kernels are tuned one by one, each alone on the device; in a step they
// follow each other and overlap, so that the whole has the last word.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "aprctl/speed_test.h"
#include "core/base/clock.h"
#include "core/runtime/session.h"

namespace apr::ctl {

// Steps of one kind, first without and then with the profile.
struct WholeSide {
  SpeedTest before, after;
  bool measured() const { return !before.seconds.empty() && !after.seconds.empty(); }
  bool slower() const;
};

class WholeModel {
 public:
  // Runs the session's steps once, to learn what they take. seconds: of the whole command; a small share of it is spent.
  WholeModel(Session& session, double seconds);

  // Seconds that compare() takes; 0: it would take too much, and nothing will be measured.
  double reserve() const { return reserve_; }

  // Both sessions turn by turn, about until `until` seconds of this object's life are over, or until stop() is true. load
  // makes the session with the profile. Throws what load and steps throw.
  void compare(const std::function<std::unique_ptr<Session>()>& load, double until,
               const std::function<bool()>& stop);

  WholeSide decode, prompt;  // prompt.before.n_prompt 0: takes too long
  std::string why_not;       // not empty: nothing was measured

 private:
  Session& session_;
  Clock::time_point start_;
  uint32_t rounds_ = 0;
  double reserve_ = 0;
};

}  // namespace apr::ctl
