/*
name = "rms_norm"
op = "rms_norm"
view = "none"
m = [1, 0]
layouts = []
arch = 80
features = []
summary = "RMS norm of rows, or of kGroups heads within a row, to floats, int8 blocks or 16-bit terms"
[params]
threads = { values = [64, 128, 256, 512], default = 256, meaning = "threads of a CTA, which has one row (one head a warp when there are groups)" }
*/
#include "tile_activation.h"

namespace apr::spec {
constexpr int kHeadsPerCta = threads / kWarp;
static_assert(kGroups == 1 || kOutput == kOutputFloat, "a norm of heads writes floats");
}  // namespace apr::spec

APR_LAUNCH = apr::launch_shape(
    apr::spec::kGroups == 1 ? 1 : apr::ceil_div(apr::spec::kGroups, apr::spec::kHeadsPerCta), 1, 1,
    apr::spec::threads, 0, 1, apr::kLaunchPdl, 1, 0);

APR_KERNEL(apr::NormArgs, apr::spec::threads, 1) {
  using namespace apr;
  pdl_wait();
  pdl_launch();
  const int row = blockIdx.y;
  if (row >= *args.m) return;
  const float* x = args.x + static_cast<uint64_t>(row) * args.x_stride;
  if constexpr (spec::kGroups == 1) {
    __shared__ float scratch[2][spec::threads / kWarp];
    float squares = 0.0f, amax = 0.0f;
    for (int c = 4 * threadIdx.x; c < spec::kK; c += 4 * spec::threads) {
      const float4 v = load_columns<spec::kK>(x, c);
      squares += square_sum(v);
      if constexpr (spec::kOutput == kOutputF16 || spec::kOutput == kOutputF16x2)
        amax = fmaxf(amax, amax4(times(v, load_columns<spec::kK>(args.weight, c))));
    }
    squares = cta_sum<spec::threads>(squares, scratch[0]);
    const float factor = rsqrtf(squares / spec::kK + args.eps);
    if constexpr (spec::kOutput == kOutputF16 || spec::kOutput == kOutputF16x2)
      amax = cta_max<spec::threads>(amax, scratch[1]) * factor;
    write_activations<spec::kOutput, spec::threads, spec::kK>(
        row, factor, amax,
        [&](int c) { return times(load_columns<spec::kK>(x, c), load_columns<spec::kK>(args.weight, c)); },
        args.y, args.yq, args.yh);
  } else {
    const int head = blockIdx.x * spec::kHeadsPerCta + threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    if (head >= spec::kGroups) return;
    x += head * spec::kK;
    float* y = args.y + (static_cast<uint64_t>(row) * spec::kGroups + head) * spec::kK;
    float squares = 0.0f;
    for (int c = lane; c < spec::kK; c += kWarp) squares += x[c] * x[c];
    const float factor = rsqrtf(warp_sum(squares) / spec::kK + args.eps);
    for (int c = lane; c < spec::kK; c += kWarp) y[c] = x[c] * factor * args.weight[c];
  }
}
