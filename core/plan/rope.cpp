#include "core/plan/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace apr {

namespace {

// The pair whose frequency makes `rotations` turns over the original context (YaRN,
// https://arxiv.org/abs/2309.00071, section 3.2), as a real number.
double pair_of_rotations(const RopeParameters& rope, double rotations) {
  return rope.dims * std::log(rope.original_context / (rotations * 2 * std::numbers::pi)) /
         (2 * std::log(rope.freq_base));
}

// How much of pair i keeps its own frequency: 1 for fast pairs, 0 for slow ones, linear between. Bounds are
// rounded outwards and clipped as in llama.cpp's ggml_rope_yarn_corr_dims, which files are made for.
class YarnMix {
 public:
  explicit YarnMix(const RopeParameters& rope)
      : low_(std::max(0.0, std::floor(pair_of_rotations(rope, rope.yarn_beta_fast)))),
        high_(std::min(rope.dims - 1.0, std::ceil(pair_of_rotations(rope, rope.yarn_beta_slow)))),
        extrapolation_(rope.yarn_extrapolation) {}

  double operator()(uint32_t pair) const {
    const double ramp = (pair - low_) / std::max(0.001, high_ - low_);
    return extrapolation_ * (1 - std::clamp(ramp, 0.0, 1.0));
  }

 private:
  double low_, high_, extrapolation_;
};

// YaRN's temperature: 1 + 0.1 m ln(factor).
double magnitude(double factor, double multiplier) {
  return factor <= 1 ? 1.0 : 1.0 + 0.1 * multiplier * std::log(factor);
}

double yarn_magnitude(const RopeParameters& rope) {
  if (rope.yarn_extrapolation == 0) return 1;
  // Models with mscale_all_dim scale all of q and k; what is left for the rotated pairs is the quotient.
  if (rope.yarn_log_multiplier != 0)
    return magnitude(rope.factor, 1) / magnitude(rope.factor, rope.yarn_log_multiplier);
  return magnitude(rope.factor, 1);
}

}  // namespace

RopeTable rope_table(const RopeParameters& rope, std::span<const float> factors) {
  const bool yarn = rope.scaling == RopeScaling::Yarn;
  RopeTable table;
  table.scale = static_cast<float>(rope.attention_factor * (yarn ? yarn_magnitude(rope) : 1));
  for (uint32_t pair = 0; pair < rope.dims / 2; ++pair) {
    double frequency = std::pow(rope.freq_base, -2.0 * pair / rope.dims);
    if (!factors.empty()) frequency /= factors[pair];
    const double own = yarn ? YarnMix(rope)(pair) : 0;
    table.inverse_frequencies.push_back(static_cast<float>(frequency * (own + (1 - own) / rope.factor)));
  }
  return table;
}

}  // namespace apr
