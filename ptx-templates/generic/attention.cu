// Causal attention over the cache: a warp per head, one position after the other.
#include "generic.h"

APR_GENERIC(apr::AttentionArgs) {
  using namespace apr;
  const int token_row = row(), dim = shape().head_dim, group = shape().heads / shape().kv_heads;
  if (token_row >= args.state->m) return;
  const int position = args.positions[token_row];
  const int begin = shape().window > 0 && position + 1 > shape().window ? position + 1 - shape().window : 0;
  for (int h = warp(); h < shape().heads; h += warps()) {
    const float* q = args.q + static_cast<uint64_t>(token_row) * args.q_stride + h * dim;
    const uint64_t cache =
        (static_cast<uint64_t>(args.sequences[token_row]) * shape().kv_heads + h / group) * args.n_ctx;
    float out[kMaxHeadDim / kLanes] = {};
    float largest = minus_infinity(), total = 0.0f;
    for (int p = begin; p <= position; ++p) {
      const uint64_t at = (cache + p) * dim;
      float dot = 0.0f;
      for (int d = lane(); d < dim; d += kLanes) dot += q[d] * half_to_float(args.k_cache[at + d]);
      const float score = warp_sum(dot) * args.scale;
      const float raised = score > largest ? score : largest;
      // What was summed so far was relative to a smaller largest score.
      const float shrink = expf(largest - raised), weight = expf(score - raised);
      total = total * shrink + weight;
      for (int i = 0, d = lane(); d < dim; ++i, d += kLanes)
        out[i] = out[i] * shrink + weight * half_to_float(args.v_cache[at + d]);
      largest = raised;
    }
    float* to = args.out + static_cast<uint64_t>(token_row) * args.out_stride + h * dim;
    for (int i = 0, d = lane(); d < dim; ++i, d += kLanes) to[d] = out[i] / total;
  }
}
