/*
name = "read_bandwidth"
op = "read_bandwidth"
view = "none"
m = [1, 0]
layouts = []
arch = 80
features = []
summary = "Reads a buffer once and keeps nothing: what memory bandwidth a kernel that only reads can reach"
[params]
unroll = { values = [4, 8, 16], default = 8, meaning = "16-byte loads in flight per thread" }
ctas = { values = [2, 4, 8], default = 4, meaning = "CTAs of a multiprocessor" }
*/
#include "apr_device.h"

namespace apr::spec {
constexpr int kThreads = 256;
}

APR_LAUNCH = apr::launch_shape(apr::spec::kSms * apr::spec::ctas, 1, 1, apr::spec::kThreads, 0, 0, 0, 1, 0);

APR_KERNEL(apr::BandwidthArgs, apr::spec::kThreads, apr::spec::ctas) {
  using namespace apr;
  const uint64_t units = args.bytes / 16, threads = static_cast<uint64_t>(gridDim.x) * spec::kThreads;
  uint32_t mixed = 0;
  for (uint64_t i = static_cast<uint64_t>(blockIdx.x) * spec::kThreads + threadIdx.x; i < units;
       i += threads * spec::unroll) {
    U4 v[spec::unroll];
#pragma unroll
    for (int u = 0; u < spec::unroll; ++u) {
      const uint64_t at = i + threads * u;
      v[u] = at < units ? load<U4>(args.data + 16 * at) : U4{0, 0, 0, 0};
    }
#pragma unroll
    for (int u = 0; u < spec::unroll; ++u) mixed ^= v[u].x ^ v[u].y ^ v[u].z ^ v[u].w;
  }
  // Never true for data that anyone would measure with, and the compiler cannot know.
  if (mixed == 0x9e3779b9u) *args.sink = mixed;
}
