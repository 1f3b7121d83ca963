#include "core/eval/score.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace apr {

bool log_probabilities(std::span<const float> logits, float* out) {
  float largest = -std::numeric_limits<float>::infinity();
  for (const float x : logits) {
    if (std::isnan(x)) return false;
    largest = std::max(largest, x);
  }
  if (!std::isfinite(largest)) return false;
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - largest);
  const double log_sum = std::log(sum);
  for (size_t i = 0; i < logits.size(); ++i)
    out[i] = static_cast<float>(static_cast<double>(logits[i]) - largest - log_sum);
  return true;
}

TokenScore score(std::span<const float> log_p, int32_t target) {
  TokenScore score;
  score.nll = -static_cast<double>(log_p[static_cast<size_t>(target)]);
  return score;
}

TokenScore score(std::span<const float> log_p, std::span<const float> log_p_reference, int32_t target) {
  TokenScore out = score(log_p, target);
  out.nll_reference = -static_cast<double>(log_p_reference[static_cast<size_t>(target)]);
  double kl = 0;
  for (size_t i = 0; i < log_p.size(); ++i) {
    const double reference = log_p_reference[i], p = std::exp(reference);
    // 0 ln 0 = 0, also where the model says 0 as well.
    if (p > 0) kl += p * (reference - static_cast<double>(log_p[i]));
  }
  // It is never negative but for the rounding of the logarithms, which is below 1e-6.
  out.kl = std::max(0.0, kl);
  out.dp = std::exp(-out.nll) - std::exp(-out.nll_reference);
  const auto top = [](std::span<const float> row) {
    return std::max_element(row.begin(), row.end()) - row.begin();
  };
  out.same_top = top(log_p) == top(log_p_reference) ? 1 : 0;
  return out;
}

}  // namespace apr
