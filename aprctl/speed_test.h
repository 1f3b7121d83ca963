// How fast a session reads a prompt and decodes: what `aprctl bench` and `aprctl eval --compare` measure, in the same way.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "core/runtime/session.h"

namespace apr::ctl {

struct Sample {
  double mean = 0, deviation = 0;
};
Sample summarise_sample(const std::vector<double>& values);

struct SpeedTest {
  uint32_t n_prompt, n_gen, n_depth;
  std::vector<double> seconds = {};  // one per repetition

  Sample tokens_per_second() const;
};

// Random tokens, one warm-up, every repetition from an empty cache (or one filled to n_depth, not timed).
class SpeedTester {
 public:
  SpeedTester(Session& session, uint32_t vocab)
      : session_(session), random_(20240607), token_(0, static_cast<int32_t>(vocab) - 1) {}

  void repeat(SpeedTest& test, uint32_t repetitions);

 private:
  std::vector<int32_t> tokens(uint32_t n);

  Session& session_;
  std::mt19937 random_;
  std::uniform_int_distribution<int32_t> token_;
};

}  // namespace apr::ctl
