/*
name = "rope_kv"
op = "rope_kv"
view = "none"
m = [1, 0]
layouts = []
arch = 80
features = []
summary = "Norms and rotates the heads of q and k, stores k and v in the cache; without q (kHeads = 0) and rotation it only stores"
*/
#include "tile_rope.h"

namespace apr::spec {
constexpr int kWarps = 4;
constexpr int kWork = kHeads + 2 * kKvHeads;  // warps of a row
}  // namespace apr::spec

APR_LAUNCH = apr::launch_shape(apr::ceil_div(apr::spec::kWork, apr::spec::kWarps), 1, 1,
                               apr::spec::kWarps * 32, 0, 1, apr::kLaunchPdl, 1, 0);

APR_KERNEL(apr::AttentionArgs, apr::spec::kWarps * 32, 1) {
  using namespace apr;
  pdl_wait();
  pdl_launch();
  const int row = blockIdx.y, work = blockIdx.x * spec::kWarps + threadIdx.x / kWarp;
  if (row >= args.state->m || work >= spec::kWork) return;
  const int position = args.positions[row], sequence = args.sequences[row];
  RopeAngles<spec::kRopeKind, spec::kRopeDims> angles;
  angles.set(args.inv_freq, position);
  if (work < spec::kHeads) {
    float* out = args.q_out + (static_cast<uint64_t>(row) * spec::kHeads + work) * spec::kHeadDim;
    prepare_head<spec::kHeadDim, spec::kQkNorm, spec::kRopeKind, spec::kRopeDims>(
        args.q + static_cast<uint64_t>(row) * args.q_stride + work * spec::kHeadDim, args.q_norm, args.eps,
        angles, args.rope_scale, [&](int d, float v) { out[d] = v; });
    return;
  }
  const bool is_v = work >= spec::kHeads + spec::kKvHeads;
  const int head = work - spec::kHeads - (is_v ? spec::kKvHeads : 0);
  const uint64_t at =
      ((static_cast<uint64_t>(sequence) * spec::kKvHeads + head) * args.n_ctx + position) * spec::kHeadDim;
  if (is_v) {
    const float* v = args.v + static_cast<uint64_t>(row) * args.v_stride + head * spec::kHeadDim;
    for (int d = threadIdx.x % kWarp; d < spec::kHeadDim; d += kWarp) args.v_cache[at + d] = to_f16(v[d]);
  } else {
    prepare_head<spec::kHeadDim, spec::kQkNorm, spec::kRopeKind, spec::kRopeDims>(
        args.k + static_cast<uint64_t>(row) * args.k_stride + head * spec::kHeadDim, args.k_norm, args.eps,
        angles, args.rope_scale, [&](int d, float v) { args.k_cache[at + d] = to_f16(v); });
  }
}
