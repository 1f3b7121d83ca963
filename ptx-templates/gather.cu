/*
name = "gather"
op = "gather"
view = "none"
m = [1, 0]
layouts = []
arch = 80
features = []
summary = "y[i] = a[rows[i]]"
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
  const float4 v = load_columns<spec::kK>(args.a + static_cast<uint64_t>(args.rows[row]) * spec::kK, column);
  store_columns<spec::kK>(args.y + first, column, v);
}
