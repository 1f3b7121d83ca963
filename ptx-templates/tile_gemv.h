// The GEMV skeleton, for any codec, layout and number of segments. What differs between the integer and the float view is a
// View (gemv_int.cu, gemv_float.cu): how activations lie in shared memory and how one chunk is multiplied with them.
//
// A group of `lanes` lanes computes `rows` rows at once; lane l of a group takes chunks l, l + lanes, ... of a row. A warp's
// groups together make a task; tasks go round-robin to warps in such an order that neighbouring tasks run on different
// multiprocessors, so a remainder spreads evenly. Loads run `depth` iterations ahead of the arithmetic, across task
// borders, and the first ones are issued before the previous kernel's results are waited for: weights depend on nothing.
#pragma once

#include "tile_activation.h"
#include "tile_codec.h"

namespace apr {

// A lane group's geometry for one codec.
template <class Codec, int kK, int kLanes, int kDepth>
struct GemvShape {
  static constexpr int kBlocks = ceil_div(kK, Codec::kBlock);  // of a row
  static constexpr int kChunks = kBlocks * block_chunks<Codec>();
  static constexpr int kIters = ceil_div(kChunks, kLanes);
  static constexpr int kPaddedIters = round_up(kIters, kDepth);  // so that an iteration's buffer slot is a constant
  static constexpr int kColumns = round_up(kLanes * kIters, block_chunks<Codec>()) / block_chunks<Codec>() * Codec::kBlock;
};

// Columns that the activations in shared memory cover, over the first kSegments segments.
template <int kSegments, int kLanes, int kDepth>
constexpr int gemv_columns() {
  if constexpr (kSegments == 0) {
    return 0;
  } else {
    using Codec = typename spec::Segments::template At<kSegments - 1>::type::Codec;
    return max_of(gemv_columns<kSegments - 1, kLanes, kDepth>(), GemvShape<Codec, spec::kK, kLanes, kDepth>::kColumns);
  }
}

// View: struct with
//   kTokens                     tokens of a CTA
//   Decoded<Codec>              one chunk in registers
//   decode<Segment>(raw, chunk, decoded)
//   dot<Codec, kRows>(decoded[kRows], column, chunk, acc[kRows][kTokens])
//   prologue(args, token0)      waits for the previous kernel, fills shared memory with a barrier at the end
//   factor(token)               multiplies the result: the norm's 1 / rms
template <class View, int kLanes, int kRows, int kDepth, int kWarps>
struct Gemv {
  static constexpr int kTokens = View::kTokens;
  static constexpr int kGroups = kWarp / kLanes;
  static constexpr int kTaskRows = kGroups * kRows;

  // Rows of a segment are dealt in tasks; with SwiGLU a task's rows alternate between gate and up.
  template <class Segment, bool kPair>
  static constexpr int tasks() {
    return ceil_div(kPair ? 2 * Segment::kN : Segment::kN, kTaskRows);
  }

  template <class Segment>
  using Shape = GemvShape<typename Segment::Codec, spec::kK, kLanes, kDepth>;

  // One iteration of one lane group for segment kSegment: the loads alone.
  template <class Segment, int kSegment, bool kPair>
  static __device__ __forceinline__ void fetch(const LinearArgs& args, int task, int iter,
                                               typename Segment::Layout::Raw (&raw)[kRows]) {
    using Codec = typename Segment::Codec;
    using S = Shape<Segment>;
    const int lane = threadIdx.x % kLanes, group = threadIdx.x % kWarp / kLanes;
    int c = lane + kLanes * iter;
    if constexpr (S::kChunks % kLanes != 0) c = min(c, S::kChunks - 1);  // its activations are zeros
    const int block = c / block_chunks<Codec>(), chunk = c % block_chunks<Codec>();
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      int row = task * kTaskRows + group * kRows + r;
      if constexpr (kPair) {
        row = task * (kTaskRows / 2) + group * (kRows / 2) + r / 2;
        if constexpr (Segment::kN % (kTaskRows / 2) != 0) row = min(row, Segment::kN - 1);
        raw[r] = Segment::Layout::load(block_planes<typename Segment::Layout>(args.w[kSegment + r % 2], row * S::kBlocks + block), chunk);
      } else {
        if constexpr (Segment::kN % kTaskRows != 0) row = min(row, Segment::kN - 1);
        raw[r] = Segment::Layout::load(block_planes<typename Segment::Layout>(args.w[kSegment], row * S::kBlocks + block), chunk);
      }
    }
  }

  // The first kDepth iterations of a task into the ring.
  template <class Segment, int kSegment, bool kPair>
  static __device__ __forceinline__ void fill(const LinearArgs& args, int task,
                                              typename Segment::Layout::Raw (&ring)[kDepth][kRows]) {
#pragma unroll
    for (int d = 0; d < kDepth; ++d)
      if (d < Shape<Segment>::kIters) fetch<Segment, kSegment, kPair>(args, task, d, ring[d]);
  }

  // One iteration's arithmetic. The slot is free once decoded: `refill` issues its next loads before the products.
  template <class Segment, typename Refill>
  static __device__ __forceinline__ void consume(const typename Segment::Layout::Raw (&raw)[kRows], int iter,
                                                 float (&acc)[kRows][kTokens], const Refill& refill) {
    using Codec = typename Segment::Codec;
    const int c = static_cast<int>(threadIdx.x) % kLanes + kLanes * iter;
    const int block = c / block_chunks<Codec>(), chunk = c % block_chunks<Codec>();
    typename View::template Decoded<Codec> w[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) View::template decode<Segment>(raw[r], chunk, w[r]);
    refill();
    View::template dot<Codec, kRows>(w, block * Codec::kBlock, chunk, acc);
  }

  // All tasks of this warp from `task` on; the ring holds the first iterations of the first one.
  template <class Segment, int kSegment, bool kPair>
  static __device__ __forceinline__ void tasks_of_warp(const View& view, const LinearArgs& args, int token0, int task, int stride,
                                                       typename Segment::Layout::Raw (&ring)[kDepth][kRows]) {
    using S = Shape<Segment>;
    constexpr int kTasks = tasks<Segment, kPair>();
    const int lane = threadIdx.x % kLanes, group = threadIdx.x % kWarp / kLanes;
    for (; task < kTasks; task += stride) {
      // Lane r of the group writes row r: what it adds is fetched while the weights stream.
      constexpr int kOut = kPair ? kRows / 2 : kRows;
      const int out_row = task * (kPair ? kTaskRows / 2 : kTaskRows) + group * kOut + lane;
      const bool writes = lane < kOut && out_row < Segment::kN;
      float bias = 0.0f, bias_up = 0.0f, residual[kTokens] = {};
      if (writes) {
        if constexpr (Segment::kBias) bias = args.bias[kSegment][out_row];
        if constexpr (Segment::kBias && kPair) bias_up = args.bias[kSegment + 1][out_row];
        if constexpr (spec::kEpilogue == kEpilogueResidual) {
#pragma unroll
          for (int t = 0; t < kTokens; ++t)
            if (token0 + t < spec::kM) residual[t] = args.residual[(token0 + t) * args.y_stride[kSegment] + out_row];
        }
      }
      float acc[kRows][kTokens] = {};
      const int next = task + stride;
      for (int k = 0; k < S::kPaddedIters - kDepth; k += kDepth) {
#pragma unroll
        for (int d = 0; d < kDepth; ++d) {
          consume<Segment>(ring[d], k + d, acc, [&] {
            if (S::kPaddedIters == S::kIters || k + kDepth + d < S::kIters)
              fetch<Segment, kSegment, kPair>(args, task, k + kDepth + d, ring[d]);
          });
        }
      }
      constexpr int kLast = S::kPaddedIters - kDepth;
#pragma unroll
      for (int d = 0; d < kDepth; ++d) {
        const auto fetch_next = [&] {
          if (d < S::kIters && next < kTasks) fetch<Segment, kSegment, kPair>(args, next, d, ring[d]);
        };
        if (kLast + d < S::kIters) {
          consume<Segment>(ring[d], kLast + d, acc, fetch_next);
        } else {
          fetch_next();
        }
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r)
#pragma unroll
        for (int t = 0; t < kTokens; ++t) acc[r][t] = warp_sum<kLanes>(acc[r][t]);
      if (!writes) continue;
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
        if (token0 + t >= spec::kM) continue;
        float v = acc[0][t], up = acc[1 % kRows][t];
#pragma unroll
        for (int r = 1; r < kOut; ++r) {
          if (lane != r) continue;
          v = acc[kPair ? 2 * r : r][t];
          up = acc[kPair ? 2 * r + 1 : r][t];
        }
        v = v * view.factor(t) + bias;
        if constexpr (kPair) v = silu(v) * (up * view.factor(t) + bias_up);
        args.y[kSegment][(token0 + t) * args.y_stride[kSegment] + out_row] = v + residual[t];
      }
    }
  }

  template <int kIndex>
  using SegmentAt = typename spec::Segments::template At<kIndex>::type;

  static constexpr bool kPairs = spec::kEpilogue == kEpilogueSwiglu;
  static constexpr int kWalks = kPairs ? 1 : spec::kSegments;  // a pair of segments is walked as one

  // Tasks of all segments before kIndex.
  template <int kIndex>
  static constexpr int tasks_before() {
    if constexpr (kIndex == 0) {
      return 0;
    } else {
      return tasks_before<kIndex - 1>() + tasks<SegmentAt<kIndex - 1>, kPairs>();
    }
  }
  static constexpr int kTotalTasks = tasks_before<kWalks>();

  template <int kIndex>
  static constexpr int ring_words() {
    if constexpr (kIndex == 0) {
      return 1;
    } else {
      return max_of(ring_words<kIndex - 1>(), ceil_div(sizeof(typename SegmentAt<kIndex - 1>::Layout::Raw), 4));
    }
  }
  // The ring as words, whichever segment the warp begins with: the first loads are in flight across the prologue.
  struct Ring {
    uint32_t w[kDepth][kRows][ring_words<kWalks>()];
  };
  template <typename Raw>
  static __device__ __forceinline__ void store(const Raw (&ring)[kDepth][kRows], Ring& words) {
#pragma unroll
    for (int d = 0; d < kDepth; ++d)
#pragma unroll
      for (int r = 0; r < kRows; ++r) memcpy(words.w[d][r], &ring[d][r], sizeof(Raw));
  }
  template <typename Raw>
  static __device__ __forceinline__ void restore(const Ring& words, Raw (&ring)[kDepth][kRows]) {
#pragma unroll
    for (int d = 0; d < kDepth; ++d)
#pragma unroll
      for (int r = 0; r < kRows; ++r) memcpy(&ring[d][r], words.w[d][r], sizeof(Raw));
  }

  // A warp's first task in segment kIndex: tasks are numbered through all segments and dealt to warps in turn.
  template <int kIndex>
  static __device__ __forceinline__ int first_task(int warp, int warps) {
    int t = (warp - tasks_before<kIndex>()) % warps;
    return t < 0 ? t + warps : t;
  }

  template <int kIndex>
  static __device__ __forceinline__ int prefetch(const LinearArgs& args, int warp, int warps, Ring& words) {
    if constexpr (kIndex < kWalks) {
      using Segment = SegmentAt<kIndex>;
      const int task = first_task<kIndex>(warp, warps);
      if (task < tasks<Segment, kPairs>()) {
        typename Segment::Layout::Raw ring[kDepth][kRows];
        fill<Segment, kIndex, kPairs>(args, task, ring);
        store(ring, words);
        return kIndex;
      }
      return prefetch<kIndex + 1>(args, warp, warps, words);
    }
    return kWalks;
  }

  template <int kIndex>
  static __device__ __forceinline__ void walk(const View& view, const LinearArgs& args, int token0, int warp, int warps, int prefetched,
                                              const Ring& words) {
    if constexpr (kIndex < kWalks) {
      using Segment = SegmentAt<kIndex>;
      const int task = first_task<kIndex>(warp, warps);
      if (task < tasks<Segment, kPairs>()) {
        typename Segment::Layout::Raw ring[kDepth][kRows];
        if (prefetched == kIndex) {
          restore(words, ring);
        } else {
          fill<Segment, kIndex, kPairs>(args, task, ring);
        }
        tasks_of_warp<Segment, kIndex, kPairs>(view, args, token0, task, warps, ring);
      }
      walk<kIndex + 1>(view, args, token0, warp, warps, prefetched, words);
    }
  }

  static __device__ __forceinline__ void run(const LinearArgs& args) {
    static_assert(!kPairs || kRows % 2 == 0, "SwiGLU computes a gate row and an up row together: rows must be even");
    const int warp = static_cast<int>(threadIdx.x / kWarp * gridDim.x + blockIdx.x);
    const int warps = static_cast<int>(gridDim.x) * kWarps;
    const int token0 = static_cast<int>(blockIdx.y) * kTokens;
    Ring words;
    const int prefetched = prefetch<0>(args, warp, warps, words);
    View view;
    view.prologue(args, token0);
    walk<0>(view, args, token0, warp, warps, prefetched, words);
  }

  // One wave of at most kCtas CTAs a multiprocessor, no larger than the work.
  static constexpr int grid(int ctas) { return min_of(spec::kSms * ctas, ceil_div(kTotalTasks, kWarps)); }
};

}  // namespace apr
