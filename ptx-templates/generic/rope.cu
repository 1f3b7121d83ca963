// Rotary embedding of the heads of one value.
#include "tile_rope.h"

APR_GENERIC(apr::AttentionArgs) {
  using namespace apr;
  const int token_row = row(), dim = shape().head_dim;
  if (token_row >= args.state->m) return;
  for (int h = warp(); h < shape().heads; h += warps()) {
    float* out = args.q_out + (static_cast<uint64_t>(token_row) * shape().heads + h) * dim;
    rotate_head(args.q + static_cast<uint64_t>(token_row) * args.q_stride + h * dim, args.inv_freq,
                args.rope_scale, args.positions[token_row], [&](int d, float v) { out[d] = v; });
  }
}
