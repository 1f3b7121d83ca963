#include "aprctl/speed_test.h"

#include <cmath>
#include <numeric>

#include "core/base/clock.h"

namespace apr::ctl {

Sample summarise_sample(const std::vector<double>& values) {
  Sample sample;
  const double n = static_cast<double>(values.size());
  sample.mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  double squares = 0;
  for (const double value : values) squares += (value - sample.mean) * (value - sample.mean);
  sample.deviation = values.size() > 1 ? std::sqrt(squares / (n - 1)) : 0.0;
  return sample;
}

Sample SpeedTest::tokens_per_second() const {
  std::vector<double> speeds;
  for (const double each : seconds) speeds.push_back((n_prompt + n_gen) / each);
  return summarise_sample(speeds);
}

void SpeedTester::repeat(SpeedTest& test, uint32_t repetitions) {
  for (uint32_t r = 0; r <= repetitions; ++r) {  // the first is the warm-up
    int32_t position = 0;
    if (test.n_depth > 0) {
      session_.feed_argmax(tokens(test.n_depth), 0);
      position = static_cast<int32_t>(test.n_depth);
    }
    const std::vector<int32_t> input = tokens(test.n_prompt + 1);
    const auto start = Clock::now();
    if (test.n_prompt > 0) session_.feed_argmax({input.data(), test.n_prompt}, position);
    position += static_cast<int32_t>(test.n_prompt);
    int32_t token = input.back();
    for (uint32_t i = 0; i < test.n_gen; ++i)
      token = session_.feed_argmax({&token, 1}, position + static_cast<int32_t>(i), 0,
                                   i + 1 < test.n_gen ? APR_STEP_GREEDY : 0);
    if (r > 0) test.seconds.push_back(seconds_since(start));
  }
}

std::vector<int32_t> SpeedTester::tokens(uint32_t n) {
  std::vector<int32_t> out(n);
  for (int32_t& token : out) token = token_(random_);
  return out;
}

}  // namespace apr::ctl
