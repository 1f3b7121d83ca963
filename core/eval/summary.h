// Figures of a whole evaluation, each with its standard error. Errors treat the predictions as independent draws; neighbours
// in a text are not quite, so true errors are somewhat larger.
#pragma once

#include <cstdint>
#include <span>

#include "core/eval/score.h"

namespace apr {

struct Estimate {
  double value = 0, error = 0;  // NaN: not known (a maximum's; of a single value)
};

// Mean, with the standard deviation over sqrt(n). n >= 1.
Estimate mean_of(std::span<const double> values);
// exp of the mean, error carried along to first order.
Estimate exp_mean_of(std::span<const double> values);
// Root of the mean square, error carried along likewise.
Estimate rms_of(std::span<const double> values);
// The mean of zeros and ones, with the binomial error sqrt(p (1 - p) / (n - 1)).
Estimate share_of(std::span<const double> values);
// The value below which a share of 0 <= q <= 1 lies, interpolated between neighbours in order; its error is half the
// distance of the order statistics sqrt(n q (1 - q)) places to each side, which needs no assumption about the
// distribution. `sorted` ascends.
Estimate quantile_of(std::span<const double> sorted, double q);

struct EvalSummary {
  uint64_t n = 0;  // predictions that counted
  Estimate nll;    // nats per token
  Estimate perplexity;
  bool has_reference = false;  // the rest is set
  Estimate perplexity_reference;
  Estimate
      perplexity_ratio;  // perplexity / the reference's: exp of the mean difference, so its error is small
  Estimate log_ratio;    // its logarithm
  double nll_correlation = 0;  // of both sides' nll, token by token; NaN where one of them is constant
  Estimate kl_mean, kl_median, kl_90, kl_95, kl_99, kl_max;
  Estimate dp_mean, dp_rms;  // of the probability of the token that followed
  Estimate same_top;
};

EvalSummary summarise(std::span<const TokenScore> scores, bool has_reference);

}  // namespace apr
