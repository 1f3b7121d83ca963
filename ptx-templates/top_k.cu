/*
name = "top_k"
op = "top_k"
view = "none"
m = [1, 0]
layouts = []
arch = 80
features = []
summary = "The kTopK largest values of each row with their indices, in descending order; NaN counts as the smallest"
*/
#include "apr_device.h"

namespace apr::spec {
constexpr int kThreads = 1024;
constexpr int kBits = 11;  // radix of a selection round: three rounds for 32 bits
constexpr int kBins = 1 << kBits;
constexpr int power_of_two(int n) {
  int p = 1;
  while (p < n) p *= 2;
  return p;
}
constexpr int kSort = power_of_two(kTopK);
static_assert(kTopK <= 1024 && kTopK <= kN,
              "top_k sorts in one CTA: at most 1024, and no more than there are");
struct Shared {
  int histogram[kBins];
  unsigned long long keys[kSort];
  int found, digit, above;
};
}  // namespace apr::spec

APR_LAUNCH =
    apr::launch_shape(1, 1, 1, apr::spec::kThreads, sizeof(apr::spec::Shared), 1, apr::kLaunchPdl, 1, 0);

namespace apr {
APR_DEV uint32_t value_order(float v) {
  const uint32_t bits = __float_as_uint(v);
  if (v != v) return 0;
  if (v == 0.0f) return 0x80000000u;  // -0 equals 0
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
}  // namespace apr

APR_KERNEL(apr::TopKArgs, apr::spec::kThreads, 1) {
  using namespace apr;
  using namespace apr::spec;
  extern __shared__ __align__(16) uint8_t memory[];
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  pdl_wait();
  pdl_launch();
  const int row = blockIdx.y;
  if (row >= *args.m) return;
  const float* x = args.x + static_cast<uint64_t>(row) * kN;

  // Radix selection: the order of the kTopK-th largest value, digit by digit from the top.
  uint32_t prefix = 0, mask = 0;
  int wanted = kTopK;  // how many of the values with this prefix belong to the result
  for (int shift = 32 - kBits; mask != 0xffffffffu; shift = max(shift - kBits, 0)) {
    const uint32_t digits = ~mask >> shift & (kBins - 1);  // the last round has fewer bits
    for (int b = threadIdx.x; b < kBins; b += kThreads) shared.histogram[b] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < kN; i += kThreads) {
      const uint32_t order = value_order(x[i]);
      if ((order & mask) == prefix) atomicAdd(&shared.histogram[order >> shift & digits], 1);
    }
    __syncthreads();
    // One warp finds the digit: the number of values in higher bins stays below `wanted`.
    if (threadIdx.x < kWarp) {
      int above = 0, digit = -1;
      for (int base = kBins - kWarp; base >= 0 && digit < 0; base -= kWarp) {
        const int bin = base + kWarp - 1 - threadIdx.x;  // lane 0 has the highest
        const int count = shared.histogram[bin];
        int running = count;
#pragma unroll
        for (int d = 1; d < kWarp; d *= 2) {
          const int lower = __shfl_up_sync(kFull, running, d);
          if (threadIdx.x >= d) running += lower;
        }
        const unsigned reached = __ballot_sync(kFull, above + running >= wanted);
        if (reached != 0) {
          const int lane = __ffs(reached) - 1;
          digit = base + kWarp - 1 - lane;
          above += __shfl_sync(kFull, running - count, lane);
        } else {
          above += __shfl_sync(kFull, running, kWarp - 1);
        }
      }
      if (threadIdx.x == 0) shared.digit = digit, shared.above = above;
    }
    __syncthreads();
    wanted -= shared.above;
    prefix |= static_cast<uint32_t>(shared.digit) << shift;
    mask |= digits << shift;
    __syncthreads();
  }

  // Gather what is above the threshold, and the `wanted` lowest indices among those equal to it.
  if (threadIdx.x == 0) shared.found = 0;
  for (int i = threadIdx.x; i < kSort; i += kThreads) shared.keys[i] = 0;
  __syncthreads();
  const auto key = [](uint32_t order, int i) {
    return static_cast<unsigned long long>(order) << 32 | (0xffffffffu - static_cast<uint32_t>(i));
  };
  for (int i = threadIdx.x; i < kN; i += kThreads) {
    const uint32_t order = value_order(x[i]);
    if (order > prefix) shared.keys[atomicAdd(&shared.found, 1)] = key(order, i);
  }
  __syncthreads();
  const int place = shared.found;
  __syncthreads();
  // Equal ones in index order, a round of kThreads at a time.
  for (int base = 0, taken = 0; base < kN && taken < wanted; base += kThreads) {
    const int i = base + threadIdx.x;
    const bool is = i < kN && value_order(x[i]) == prefix;
    const unsigned vote = __ballot_sync(kFull, is);
    if (threadIdx.x % kWarp == 0) shared.histogram[threadIdx.x / kWarp] = __popc(vote);
    __syncthreads();
    int before = taken, all = 0;
    for (int w = 0; w < kThreads / kWarp; ++w) {
      if (w < static_cast<int>(threadIdx.x) / kWarp) before += shared.histogram[w];
      all += shared.histogram[w];
    }
    before += __popc(vote & ((1u << threadIdx.x % kWarp) - 1));
    if (is && before < wanted) shared.keys[place + before] = key(prefix, i);
    taken += all;
    __syncthreads();
  }
  __syncthreads();

  // Bitonic sort, descending.
  for (int size = 2; size <= kSort; size *= 2) {
    for (int stride = size / 2; stride > 0; stride /= 2) {
      for (int i = threadIdx.x; i < kSort / 2; i += kThreads) {
        const int a = 2 * i - (i & (stride - 1)), b = a + stride;
        const bool descending = (a & size) == 0;
        const unsigned long long ka = shared.keys[a], kb = shared.keys[b];
        if ((ka < kb) == descending) shared.keys[a] = kb, shared.keys[b] = ka;
      }
      __syncthreads();
    }
  }
  for (int i = threadIdx.x; i < kTopK; i += kThreads) {
    const unsigned long long k = shared.keys[i];
    const int index = static_cast<int>(0xffffffffu - static_cast<uint32_t>(k));
    args.value[static_cast<uint64_t>(row) * kTopK + i] = x[index];
    args.index[static_cast<uint64_t>(row) * kTopK + i] = index;
  }
}
