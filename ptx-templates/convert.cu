/*
name = "convert"
op = "convert"
view = "none"
m = [1, 0]
layouts = []
arch = 80
features = []
summary = "Activations (or silu(x) * up) as int8 blocks or 16-bit terms"
[params]
threads = { values = [64, 128, 256, 512], default = 256, meaning = "threads of a CTA, which has one row" }
*/
#include "tile_activation.h"

APR_LAUNCH = apr::launch_shape(1, 1, 1, apr::spec::threads, 0, 1, apr::kLaunchPdl, 1, 0);

APR_KERNEL(apr::ConvertArgs, apr::spec::threads, 1) {
  using namespace apr;
  pdl_wait();
  pdl_launch();
  const int row = blockIdx.y;
  if (row >= *args.m) return;
  const uint64_t first = static_cast<uint64_t>(row) * spec::kK;
  const auto get = [&](int c) {
    float4 v = load_columns<spec::kK>(args.x + first, c);
    if constexpr (spec::kSwiglu) {
      const float4 up = load_columns<spec::kK>(args.up + first, c);
      v = times({silu(v.x), silu(v.y), silu(v.z), silu(v.w)}, up);
    }
    return v;
  };
  float amax = 0.0f;
  if constexpr (spec::kOutput == kOutputF16 || spec::kOutput == kOutputF16x2) {
    __shared__ float scratch[spec::threads / kWarp];
    for (int c = 4 * threadIdx.x; c < spec::kK; c += 4 * spec::threads) amax = fmaxf(amax, amax4(get(c)));
    amax = cta_max<spec::threads>(amax, scratch);
  }
  write_activations<spec::kOutput, spec::threads, spec::kK>(row, 1.0f, amax, get, nullptr, args.yq, args.yh);
}
