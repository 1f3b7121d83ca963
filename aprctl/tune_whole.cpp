#include "aprctl/tune_whole.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/base/clock.h"
#include "core/base/format.h"
#include "core/tune/tune.h"

namespace apr::ctl {

namespace {

// Of the command's time: one trial of each kind, all rounds, and all of it with the second load.
constexpr double kTrial = 0.02, kRounds = 0.06, kMost = 0.3;
constexpr uint32_t kLeastRounds = 3, kMostRounds = 10;
constexpr uint32_t kMostDecoded = 32, kLeastPrompt = 32;

double trial(Session& session, SpeedTest test) {
  SpeedTester(session, session.vocab()).repeat(test, 1);
  return test.seconds[0];
}

uint32_t as_many(double seconds, double each, uint32_t most) {
  return static_cast<uint32_t>(std::min(seconds / std::max(each, 1e-6), static_cast<double>(most)));
}

}  // namespace

bool WholeSide::slower() const { return measured() && apr::slower(before.seconds, after.seconds); }

WholeModel::WholeModel(Session& session, double seconds) : session_(session), start_(Clock::now()) {
  const uint32_t context = session.context();
  const double token = trial(session, {0, 1, 0, {}});
  const uint32_t decoded =
      std::max(1u, as_many(kTrial * seconds / 4, token, std::min(kMostDecoded, context)));
  // A prompt's token takes less than a decoded one.
  const uint32_t most = std::min(session.batch(), context);
  uint32_t prompted = as_many(kTrial * seconds, token, most);
  if (prompted < std::min(kLeastPrompt, most) || prompted < 2) prompted = 0;
  decode = {{0, decoded, 0, {}}, {0, decoded, 0, {}}};
  const double decoding = decoded * token,
               prompting = prompted > 0 ? trial(session, {prompted, 0, 0, {}}) : 0.0;
  const double load = session.info().load_seconds;
  const auto plan = [&](double both) {
    const double round = 4 * both;  // two sessions, and each run after one that warms up
    rounds_ = std::clamp(as_many(kRounds * seconds, round, kMostRounds), kLeastRounds, kMostRounds);
    reserve_ = load + rounds_ * round;
    return reserve_ <= kMost * seconds;
  };
  if (!plan(decoding + prompting)) {
    prompted = 0;
    if (!plan(decoding)) {
      why_not = fmt::format("it would take {:.1f} of {} s", reserve_, seconds);
      reserve_ = 0;
    }
  }
  prompt = {{prompted, 0, 0, {}}, {prompted, 0, 0, {}}};
}

void WholeModel::compare(const std::function<std::unique_ptr<Session>()>& load, double until,
                         const std::function<bool()>& stop) {
  if (!why_not.empty()) return;
  const std::unique_ptr<Session> tuned = load();
  SpeedTester before(session_, session_.vocab()), after(*tuned, tuned->vocab());
  uint32_t round = 0;
  // Fewer than the least decide nothing: they are made even where the search took some of their time.
  for (; round < rounds_ && !stop() && (round < kLeastRounds || seconds_since(start_) < until); ++round)
    for (WholeSide* side : {&decode, &prompt}) {
      if (side->before.n_prompt + side->before.n_gen == 0) continue;
      before.repeat(side->before, 1);
      after.repeat(side->after, 1);
    }
  if (round < kLeastRounds) why_not = "interrupted";
}

}  // namespace apr::ctl
