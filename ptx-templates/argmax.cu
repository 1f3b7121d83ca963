/*
name = "argmax"
op = "argmax"
view = "none"
m = [1, 0]
layouts = []
arch = 80
features = []
summary = "Index of the largest value of each row, the lowest among equals; -1 for a row with a NaN"
[params]
ctas = { values = [16, 32, 64, 128], default = 64, meaning = "CTAs of a row" }
*/
#include "tile_activation.h"

namespace apr::spec {
constexpr int kThreads = 256;
constexpr int kPart = round_up(ceil_div(kN, ctas), 4);
constexpr int kMaxRows = 65536;  // rows that scratch has room for: as many as a grid has
}  // namespace apr::spec

// Scratch: per row a 64-bit best and a counter. Both are zero between launches.
APR_LAUNCH = apr::launch_shape(apr::spec::ctas, 1, 1, apr::spec::kThreads, 0, 1, apr::kLaunchPdl, 1,
                               16 * apr::spec::kMaxRows);

namespace apr {

// Larger key = larger value, then lower index; NaN above all. Never 0.
APR_DEV uint64_t argmax_key(float v, int index) {
  const uint32_t bits = __float_as_uint(v);
  uint32_t order = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  if (v == 0.0f) order = 0x80000000u;  // -0 equals 0
  if (v != v) order = 0xffffffffu;
  return static_cast<uint64_t>(order) << 32 | (0xffffffffu - static_cast<uint32_t>(index));
}

}  // namespace apr

APR_KERNEL(apr::ArgmaxArgs, apr::spec::kThreads, 1) {
  using namespace apr;
  pdl_wait();
  pdl_launch();
  const int row = blockIdx.y;
  if (row >= *args.m) return;
  const float* x = args.x + static_cast<uint64_t>(row) * spec::kN;
  const int from = blockIdx.x * spec::kPart, to = min(from + spec::kPart, spec::kN);
  uint64_t best = 0;
  constexpr int kRounds = ceil_div(spec::kPart, 4 * spec::kThreads);
  float4 v[kRounds];  // all loads in flight at once
#pragma unroll
  for (int n = 0; n < kRounds; ++n)
    v[n] = load_columns<spec::kN>(x, from + 4 * (n * spec::kThreads + static_cast<int>(threadIdx.x)));
#pragma unroll
  for (int n = 0; n < kRounds; ++n) {
    const int i = from + 4 * (n * spec::kThreads + static_cast<int>(threadIdx.x));
    const float one[4] = {v[n].x, v[n].y, v[n].z, v[n].w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const uint64_t key = argmax_key(one[j], i + j);
      if (i + j < to) best = key > best ? key : best;
    }
  }
#pragma unroll
  for (int d = 16; d > 0; d /= 2) {
    const uint64_t other = __shfl_xor_sync(kFull, best, d);
    best = other > best ? other : best;
  }
  __shared__ unsigned long long warps[spec::kThreads / kWarp];
  if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = best;
  __syncthreads();
  if (threadIdx.x != 0) return;
#pragma unroll
  for (int w = 0; w < spec::kThreads / kWarp; ++w) best = warps[w] > best ? warps[w] : best;
  struct Slot {
    unsigned long long best;
    unsigned count, pad;
  };
  Slot* slot = static_cast<Slot*>(args.scratch) + row;
  atomicMax(&slot->best, static_cast<unsigned long long>(best));
  __threadfence();
  if (atomicAdd(&slot->count, 1u) + 1 != spec::ctas) return;
  __threadfence();
  best = atomicExch(&slot->best, 0ull);
  slot->count = 0;
  const int result =
      best >> 32 == 0xffffffffu ? -1 : static_cast<int>(0xffffffffu - static_cast<uint32_t>(best));
  args.index[row] = result;
  if (row == 0) args.next.begin(result);
}
