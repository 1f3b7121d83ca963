/*
name = "swiglu"
op = "swiglu"
view = "none"
m = [1, 0]
layouts = []
arch = 80
features = []
summary = "y = silu(a) * b"
*/
#include "tile_activation.h"

namespace apr::spec {
constexpr int kThreads = 256;
}

APR_LAUNCH = apr::launch_shape(apr::ceil_div(apr::spec::kK, 4 * apr::spec::kThreads), 1, 1,
                               apr::spec::kThreads, 0, 1, apr::kLaunchPdl, 1, 0);

APR_KERNEL(apr::ElementwiseArgs, apr::spec::kThreads, 1) {
  using namespace apr;
  pdl_wait();
  pdl_launch();
  const int row = blockIdx.y, column = 4 * (blockIdx.x * spec::kThreads + threadIdx.x);
  if (row >= *args.m || column >= spec::kK) return;
  const uint64_t first = static_cast<uint64_t>(row) * spec::kK;
  const float4 a = load_columns<spec::kK>(args.a + first, column),
               b = load_columns<spec::kK>(args.b + first, column);
  const float4 v = times({silu(a.x), silu(a.y), silu(a.z), silu(a.w)}, b);
  store_columns<spec::kK>(args.y + first, column, v);
}
