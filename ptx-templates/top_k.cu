/*
name = "top_k"
op = "top_k"
view = "none"
m = [1, 0]
layouts = []
arch = 80
features = []
summary = "The kTopK largest values of each row with their indices, in descending order; -1 for a row with a NaN"
[params]
ctas = { values = [16, 32, 64, 128], default = 64, meaning = "CTAs of a row" }
*/
#include "tile_activation.h"

// Every CTA takes the maxima of groups of columns. A value among the kTopK largest lies in a group whose maximum is at least
// the kTopK-th largest maximum, so the last CTA has the columns of about kTopK groups to look at instead of the row.
namespace apr::spec {
constexpr int kThreads = 1024;
constexpr int kGroup = 64;          // columns: 16 lanes read four each
constexpr int kLanes = kGroup / 4;  // of a group
constexpr int kAtOnce = kThreads / kLanes;
constexpr int kGroups = ceil_div(kN, kGroup);
constexpr int kPart = ceil_div(kGroups, ctas);  // groups of a CTA
constexpr int kBits = 8;                        // radix of a selection round: four rounds for 32 bits
constexpr int kBins = 1 << kBits;
constexpr int power_of_two(int n) {
  int p = 1;
  while (p < n) p *= 2;
  return p;
}
constexpr int kSort = power_of_two(kTopK);
constexpr int kPadded = kGroups * kGroup, kCached = min_of(8 * kThreads, kPadded);
static_assert(kTopK <= 1024 && kTopK <= kN,
              "top_k sorts in one CTA: at most 1024, and no more than there are");
struct Shared {
  unsigned long long keys[kSort];
  int groups[kGroups];      // that are looked at, ascending
  uint32_t order[kCached];  // of their first columns
  int histogram[kBins];
  int votes[kThreads / kWarp];
  int found, digit, above, last;
};
static_assert(sizeof(Shared) <= kMaxShared, "the row has more groups than shared memory has room for");
}  // namespace apr::spec

// Scratch: of each row a counter, zero between launches, and the maxima of its groups.
APR_LAUNCH = apr::launch_shape(apr::spec::ctas, 1, 1, apr::spec::kThreads, sizeof(apr::spec::Shared), 1,
                               apr::kLaunchPdl, 1, 4 * (1 + apr::spec::kGroups) * apr::kHeadRows);

namespace apr {

// Larger = larger value; -0 equals 0; NaN above all. Never 0.
APR_DEV uint32_t value_order(float v) {
  const uint32_t bits = __float_as_uint(v);
  if (v != v) return 0xffffffffu;
  if (v == 0.0f) return 0x80000000u;
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// Radix selection by the whole CTA: the `wanted`-th largest of order(0) .. order(count - 1), digit by digit from the top.
// `wanted` becomes the number of those equal to it that are among the largest.
template <class Order>
APR_DEV uint32_t select(spec::Shared& shared, int count, int& wanted, const Order& order) {
  using namespace spec;
  uint32_t prefix = 0;
  for (int shift = 32 - kBits; shift >= 0; shift -= kBits) {
    for (int b = threadIdx.x; b < kBins; b += kThreads) shared.histogram[b] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += kThreads) {
      const uint32_t o = order(i);
      if (shift == 32 - kBits || o >> (shift + kBits) == prefix)
        atomicAdd(&shared.histogram[o >> shift & (kBins - 1)], 1);
    }
    __syncthreads();
    // One warp finds the digit: the number of values in higher bins stays below `wanted`. Lane 0 has the highest bins.
    if (threadIdx.x < kWarp) {
      constexpr int kEach = kBins / kWarp;
      const int first = kBins - 1 - kEach * static_cast<int>(threadIdx.x);
      int sum = 0;
#pragma unroll
      for (int b = 0; b < kEach; ++b) sum += shared.histogram[first - b];
      int running = sum;
#pragma unroll
      for (int d = 1; d < kWarp; d *= 2) {
        const int lower = __shfl_up_sync(kFull, running, d);
        if (static_cast<int>(threadIdx.x) >= d) running += lower;
      }
      const unsigned reached = __ballot_sync(kFull, running >= wanted);
      if (static_cast<int>(threadIdx.x) == __ffs(reached) - 1) {
        int above = running - sum, digit = first;
        while (above + shared.histogram[digit] < wanted) above += shared.histogram[digit--];
        shared.digit = digit, shared.above = above;
      }
    }
    __syncthreads();
    wanted -= shared.above;
    prefix = prefix << kBits | static_cast<uint32_t>(shared.digit);
    __syncthreads();
  }
  return prefix;
}

// Calls use(i, place) for each i of 0 .. count - 1, ascending, for which is(i) holds, until `most` were found. All threads
// get the number found.
template <class Is, class Use>
APR_DEV int in_order(spec::Shared& shared, int count, int most, const Is& is, const Use& use) {
  using namespace spec;
  int found = 0;
  for (int base = 0; base < count && found < most; base += kThreads) {
    const int i = base + static_cast<int>(threadIdx.x);
    const bool yes = i < count && is(i);
    const unsigned vote = __ballot_sync(kFull, yes);
    if (threadIdx.x % kWarp == 0) shared.votes[threadIdx.x / kWarp] = __popc(vote);
    __syncthreads();
    int place = found + __popc(vote & ((1u << threadIdx.x % kWarp) - 1));
#pragma unroll
    for (int w = 0; w < kThreads / kWarp; ++w) {
      const int votes = shared.votes[w];
      if (w < static_cast<int>(threadIdx.x) / kWarp) place += votes;
      found += votes;
    }
    if (yes && place < most) use(i, place);
    __syncthreads();
  }
  return found < most ? found : most;
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
  unsigned* counter = static_cast<unsigned*>(args.scratch) + row;
  uint32_t* maxima = static_cast<uint32_t*>(args.scratch) + kHeadRows + row * kGroups;

  const int end = min((static_cast<int>(blockIdx.x) + 1) * kPart, kGroups);
  for (int base = blockIdx.x * kPart; base < end; base += kAtOnce) {
    const int group = base + static_cast<int>(threadIdx.x) / kLanes;
    const int column = group * kGroup + 4 * (static_cast<int>(threadIdx.x) % kLanes);
    uint32_t best = 0;
    if (group < end) {
      const float4 v = load_columns<kN>(x, column);
      const float one[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int j = 0; j < 4; ++j)
        if (column + j < kN) best = max(best, value_order(one[j]));
    }
#pragma unroll
    for (int d = kLanes / 2; d > 0; d /= 2) best = max(best, __shfl_xor_sync(kFull, best, d));
    if (threadIdx.x % kLanes == 0 && group < end) maxima[group] = best;
  }
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) shared.last = atomicAdd(counter, 1u) + 1 == ctas;
  __syncthreads();
  if (!shared.last) return;
  __threadfence();
  if (threadIdx.x == 0) *counter = 0;

  Candidate* best = args.best + static_cast<uint64_t>(row) * kTopK;
  const auto maximum = [&](int group) { return __ldcg(maxima + group); };
  bool nan = false;
  for (int g = threadIdx.x; g < kGroups; g += kThreads) nan = nan || maximum(g) == 0xffffffffu;
  if (__syncthreads_or(nan)) {
    for (int i = threadIdx.x; i < kTopK; i += kThreads) best[i] = {__uint_as_float(0x7fc00000u), -1};
    return;
  }
  uint32_t least = 0;  // maximum of a group that is looked at
  if constexpr (kGroups > kTopK) {
    int wanted = kTopK;
    least = select(shared, kGroups, wanted, maximum);
  }
  const int n_groups = in_order(
      shared, kGroups, kGroups, [&](int g) { return maximum(g) >= least; },
      [&](int g, int place) { shared.groups[place] = g; });
  const int columns = n_groups * kGroup;
  const auto column_of = [&](int i) { return shared.groups[i / kGroup] * kGroup + i % kGroup; };
  const auto order_in_memory = [&](int i) {
    const int column = column_of(i);
    return column < kN ? value_order(x[column]) : 0u;
  };
#pragma unroll
  for (int n = 0; n < kCached / kThreads + 1; ++n) {
    const int i = n * kThreads + static_cast<int>(threadIdx.x);
    if (i < min(columns, kCached)) shared.order[i] = order_in_memory(i);
  }
  __syncthreads();
  const auto order = [&](int i) { return i < kCached ? shared.order[i] : order_in_memory(i); };
  int equal = kTopK;
  const uint32_t threshold = select(shared, columns, equal, order);

  // What is above the threshold, in any order, and the first `equal` of those that are equal to it.
  if (threadIdx.x == 0) shared.found = 0;
  for (int i = threadIdx.x; i < kSort; i += kThreads) shared.keys[i] = 0;
  __syncthreads();
  const auto key = [&](uint32_t o, int i) {
    return static_cast<unsigned long long>(o) << 32 | (0xffffffffu - static_cast<uint32_t>(column_of(i)));
  };
  for (int i = threadIdx.x; i < columns; i += kThreads) {
    const uint32_t o = order(i);
    if (o > threshold) shared.keys[atomicAdd(&shared.found, 1)] = key(o, i);
  }
  in_order(
      shared, columns, equal, [&](int i) { return order(i) == threshold; },
      [&](int i, int place) { shared.keys[kTopK - equal + place] = key(threshold, i); });

  // Bitonic sort, descending.
  for (int size = 2; size <= kSort; size *= 2) {
    for (int stride = size / 2; stride > 0; stride /= 2) {
      __syncthreads();
      for (int i = threadIdx.x; i < kSort / 2; i += kThreads) {
        const int a = 2 * i - (i & (stride - 1)), b = a + stride;
        const bool descending = (a & size) == 0;
        const unsigned long long ka = shared.keys[a], kb = shared.keys[b];
        if ((ka < kb) == descending) shared.keys[a] = kb, shared.keys[b] = ka;
      }
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kTopK; i += kThreads) {
    const int column = static_cast<int>(0xffffffffu - static_cast<uint32_t>(shared.keys[i]));
    best[i] = {x[column], column};
  }
}
