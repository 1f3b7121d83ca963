// Stores k and v, which come ready, in the cache.
#include "generic.h"

APR_GENERIC(apr::AttentionArgs) {
  using namespace apr;
  const int token_row = row(), dim = shape().head_dim;
  if (token_row >= args.state->m) return;
  for (int h = warp(); h < shape().kv_heads; h += warps()) {
    const uint64_t at =
        ((static_cast<uint64_t>(args.sequences[token_row]) * shape().kv_heads + h) * args.n_ctx +
         args.positions[token_row]) *
        dim;
    for (int d = lane(); d < dim; d += kLanes) {
      args.k_cache[at + d] = to_f16(args.k[static_cast<uint64_t>(token_row) * args.k_stride + h * dim + d]);
      args.v_cache[at + d] = to_f16(args.v[static_cast<uint64_t>(token_row) * args.v_stride + h * dim + d]);
    }
  }
}
