/*
name = "rope"
op = "rope"
view = "none"
m = [1, 0]
layouts = []
arch = 80
features = []
summary = "Rotary embedding of the heads of one value"
*/
#include "tile_rope.h"

namespace apr::spec {
constexpr int kWarps = 4;
}

APR_LAUNCH = apr::launch_shape(apr::ceil_div(apr::spec::kHeads, apr::spec::kWarps), 1, 1,
                               apr::spec::kWarps * 32, 0, 1, apr::kLaunchPdl, 1, 0);

APR_KERNEL(apr::AttentionArgs, apr::spec::kWarps * 32, 1) {
  using namespace apr;
  const int row = blockIdx.y, head = blockIdx.x * spec::kWarps + threadIdx.x / kWarp;
  pdl_wait();
  pdl_launch();
  if (row >= args.state->m || head >= spec::kHeads) return;
  RopeAngles<spec::kRopeKind, spec::kRopeDims> angles;
  angles.set(args.inv_freq, args.positions[row]);
  float* out = args.q_out + (static_cast<uint64_t>(row) * spec::kHeads + head) * spec::kHeadDim;
  prepare_head<spec::kHeadDim, false, spec::kRopeKind, spec::kRopeDims>(
      args.q + static_cast<uint64_t>(row) * args.q_stride + head * spec::kHeadDim, nullptr, 0.0f, angles,
      args.rope_scale, [&](int d, float v) { out[d] = v; });
}
