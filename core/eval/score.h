// What one prediction is worth: a row of logits against the token that followed, and against what a reference model said.
// Definitions as in llama.cpp's perplexity tool (tools/perplexity/README.md there); natural logarithms.
#pragma once

#include <cstdint>
#include <span>

namespace apr {

struct TokenScore {
  double nll = 0;            // -ln p(the token that followed)
  double nll_reference = 0;  // the same of the reference; this and the rest are 0 without one
  double kl = 0;             // sum over the vocabulary of p_ref (ln p_ref - ln p), >= 0
  double dp = 0;             // p - p_ref of the token that followed
  double same_top = 0;       // 1: both have the same most probable token (the lowest index among equals)
};

// ln softmax, computed in double and rounded to float once. logits [vocab], out [vocab]. False when a logit is NaN or
// +infinity, or all are -infinity: then there are no probabilities.
bool log_probabilities(std::span<const float> logits, float* out);

// log_p [vocab] of log_probabilities(); 0 <= target < vocab.
TokenScore score(std::span<const float> log_p, int32_t target);
TokenScore score(std::span<const float> log_p, std::span<const float> log_p_reference, int32_t target);

}  // namespace apr
