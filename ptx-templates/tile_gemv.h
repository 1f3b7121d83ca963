// The GEMV skeleton, for any codec, layout and number of segments. What differs between the integer and the
// float view is a View (gemv_int.cu, gemv_float.cu): where activations are read from and how one chunk is
// multiplied with them.
//
// A group of `lanes` lanes computes `rows` rows at once; a team of `split` warps shares the rows, each with
// its part of the columns: lane l of part p takes chunks p * lanes + l, then every lanes * split-th. A team's
// groups together make a task; tasks go round-robin to teams in such an order that neighbouring tasks run on
// different multiprocessors, so a remainder spreads evenly. Loads run `depth` iterations ahead of the
// arithmetic, across task borders, and the first ones are issued before the previous kernel's results are
// waited for: weights depend on nothing.
#pragma once

#include "gemv_choice.h"
#include "tile_activation.h"

namespace apr {

// A barrier among some warps of the CTA.
template <int kThreads>
APR_DEV void sync_some(int id) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "n"(kThreads) : "memory");
}

// View: struct with
//   kTokens                     tokens of a CTA
//   Decoded<Codec>              one chunk in registers
//   decode<Segment>(raw, chunk, decoded)
//   Columns<Codec, Shape>       where a lane's activations lie: set(view, first chunk), advance(iterations)
//   dot<Codec, Shape, kRows>(decoded[kRows], columns, iter, chunk, whole, acc[kRows][kTokens])
//                               iter iterations after where columns are; whole = false: this lane has no chunk
//                               in it
//   prologue(args, token0)      waits for the previous kernel and prepares the activations
//   factor(token)               multiplies the result: the norm's 1 / rms
template <class View, int kLanes, int kRows, int kDepth, int kWarps, int kSplit, int kCtas, int kAhead>
struct Gemv {
  static constexpr int kTokens = View::kTokens;
  static constexpr bool kPairs =
      spec::kEpilogue == kEpilogueSwiglu;  // a task's rows alternate between gate and up
  static constexpr bool kQuantise = kPairs && spec::kOutput == kOutputInt8;
  static constexpr int kGroups = kWarp / kLanes, kTeams = kWarps / kSplit;
  static constexpr int kOut = kPairs ? kRows / 2 : kRows;  // results of a lane group
  static constexpr int kTaskOut = kGroups * kOut;          // of a task
  static_assert(kWarps % kSplit == 0 && (kSplit == 1 || kTeams <= 8),
                "teams are whole, and barriers are few");
  static_assert(kOut <= kLanes, "a lane writes one row");
  static_assert(!kPairs || kRows % 2 == 0,
                "SwiGLU computes a gate row and an up row together: rows must be even");

  // With quantised output a block of kActBlock results is made by kBlockTeams teams of one CTA in kPasses
  // passes.
  static constexpr int kBlockTasks = kQuantise ? kActBlock / kTaskOut : 1;
  static constexpr int kBlockTeams = kQuantise ? min_of(kBlockTasks, kTeams) : 1;
  static constexpr int kPasses = kBlockTasks / kBlockTeams,
                       kBlocksAtOnce = kQuantise ? kTeams / kBlockTeams : 1;
  static_assert(!kQuantise || (kActBlock % kTaskOut == 0 && kBlockTasks % kBlockTeams == 0 &&
                               kTeams % kBlockTeams == 0 && kBlocksAtOnce <= 7),
                "tasks and teams must fit blocks of 16 results");

  template <class Segment>
  static constexpr int tasks() {
    return kQuantise ? round_up(Segment::kN, 32) / kActBlock * kBlockTasks : ceil_div(Segment::kN, kTaskOut);
  }

  template <class Segment>
  using Shape = GemvShape<typename Segment::Codec, spec::kK, kLanes, kSplit, kDepth>;

  static __device__ __forceinline__ int lane() { return threadIdx.x % kLanes; }
  static __device__ __forceinline__ int group() { return threadIdx.x % kWarp / kLanes; }
  static __device__ __forceinline__ int team() { return threadIdx.x / (kWarp * kSplit); }
  static __device__ __forceinline__ int part() { return kSplit == 1 ? 0 : threadIdx.x / kWarp % kSplit; }
  // Task number i of this team in a segment that the team begins with task `first`.
  static __device__ __forceinline__ int task_at(int first, int i) {
    if constexpr (kQuantise) {
      const int block =
          (i / kPasses * static_cast<int>(gridDim.x) + static_cast<int>(blockIdx.x)) * kBlocksAtOnce +
          team() / kBlockTeams;
      return block * kBlockTasks + i % kPasses * kBlockTeams + team() % kBlockTeams;
    }
    return first + i * static_cast<int>(gridDim.x) * kTeams;
  }

  // Where the rows of a task begin for this lane: its first chunk's block in each plane.
  template <class Segment>
  struct Rows {
    using Layout = typename Segment::Layout;
    Planes<Layout::kPlanes> at[kRows];
    // Addresses go along with the loop, so that within it each is a register and a constant.
    __device__ __forceinline__ void advance(int iters) {
      if constexpr (Shape<Segment>::kRegular) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) at[r] = apr::advance<Layout>(at[r], iters * Shape<Segment>::kStride);
      }
    }
  };

  template <class Segment, int kSegment>
  static __device__ __forceinline__ void find(const LinearArgs& args, int task, Rows<Segment>& rows) {
    using S = Shape<Segment>;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      int row = task * kTaskOut + group() * kOut + (kPairs ? r / 2 : r);
      if constexpr (Segment::kN % kTaskOut != 0 || kQuantise) row = min(row, Segment::kN - 1);
      const int chunk = S::kWhole ? first_chunk() : min(first_chunk(), S::kChunks - 1);
      const int block = S::kRegular ? chunk / block_chunks<typename Segment::Codec>() : 0;
      rows.at[r] = block_planes<typename Segment::Layout>(args.w[kSegment + (kPairs ? r % 2 : 0)],
                                                          row * S::kBlocks + block);
    }
  }

  static __device__ __forceinline__ int first_chunk() { return part() * kLanes + lane(); }

  // Whether the last iteration, in which lanes may be without a chunk, falls to this slot of the ring.
  template <class Segment>
  static constexpr bool may_be_last(int iter) {
    return iter % kDepth == (Shape<Segment>::kIters - 1) % kDepth;
  }

  // Iteration base + iter of one lane group, where rows are those of iteration base: the loads alone. iter is a
  // constant, so that it becomes part of the loads' immediate offsets.
  template <class Segment>
  static __device__ __forceinline__ void fetch(const Rows<Segment>& rows, int base, int iter,
                                               typename Segment::Layout::Raw (&raw)[kRows]) {
    using Codec = typename Segment::Codec;
    using Layout = typename Segment::Layout;
    using S = Shape<Segment>;
    constexpr int kPerBlock = block_chunks<Codec>();
    if constexpr (S::kRegular) {
      uint32_t blocks = iter * S::kStride;
      if constexpr (!S::kWhole && S::kIters > 1) {
        // A lane without a chunk reads that of the iteration before again; its activations are zeros.
        if (may_be_last<Segment>(iter) && base + iter == S::kIters - 1 &&
            first_chunk() + kLanes * kSplit * (S::kIters - 1) >= S::kChunks)
          blocks -= S::kStride;
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r)
        raw[r] = Layout::load(apr::advance<Layout>(rows.at[r], blocks), first_chunk() % kPerBlock);
    } else {
      int c = first_chunk() + kLanes * kSplit * (base + iter);
      if constexpr (!S::kWhole) c = min(c, S::kChunks - 1);
#pragma unroll
      for (int r = 0; r < kRows; ++r)
        raw[r] = Layout::load(apr::advance<Layout>(rows.at[r], c / kPerBlock), c % kPerBlock);
    }
  }

  // The first kDepth iterations of a task into the ring.
  template <class Segment, int kSegment>
  static __device__ __forceinline__ void fill(const LinearArgs& args, int task,
                                              typename Segment::Layout::Raw (&ring)[kDepth][kRows]) {
    Rows<Segment> rows;
    find<Segment, kSegment>(args, task, rows);
#pragma unroll
    for (int d = 0; d < kDepth; ++d)
      if (d < Shape<Segment>::kIters) fetch<Segment>(rows, 0, d, ring[d]);
  }

  // The arithmetic of iteration base + iter, where columns are those of iteration base. The slot is free once
  // decoded: `refill` issues its next loads before the products.
  template <class Segment, typename Columns, typename Refill>
  static __device__ __forceinline__ void consume(const View& view, const Columns& columns,
                                                 const typename Segment::Layout::Raw (&raw)[kRows], int base,
                                                 int iter, float (&acc)[kRows][kTokens],
                                                 const Refill& refill) {
    using Codec = typename Segment::Codec;
    using S = Shape<Segment>;
    const int c = first_chunk() + kLanes * kSplit * (base + iter);
    const int chunk = (S::kRegular ? first_chunk() : c) % block_chunks<Codec>();
    typename View::template Decoded<Codec> w[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) View::template decode<Segment>(raw[r], chunk, w[r]);
    refill();
    const bool whole = S::kWhole || !may_be_last<Segment>(iter) || c < S::kChunks;
    view.template dot<Codec, S, kRows>(w, columns, iter, c, whole, acc);
  }

  // All tasks of this team from `first` on; the ring holds the first iterations of the first one.
  template <class Segment, int kSegment>
  static __device__ __forceinline__ void tasks_of_team(const View& view, const LinearArgs& args, int token0,
                                                       int first,
                                                       typename Segment::Layout::Raw (&ring)[kDepth][kRows]) {
    using S = Shape<Segment>;
    constexpr int kTasks = tasks<Segment>();
    // Two buffers each, so that one barrier per use is enough.
    __shared__ float parts[2][kSplit > 1 ? kTeams : 1][kSplit > 1 ? kSplit - 1 : 1][kTaskOut][kTokens]
                          [kPairs ? 2 : 1];
    __shared__ float results[2][kBlocksAtOnce][kQuantise ? kTokens : 1][kActBlock];
    int task = first;
    typename View::template Columns<typename Segment::Codec, S> begin;
    begin.set(view, first_chunk());
    Rows<Segment> rows;
    find<Segment, kSegment>(args, task, rows);
    for (int i = 0; task < kTasks; ++i) {
      const int next = task_at(first, i + 1);
      // Lane r of the group writes row r: what it adds is fetched while the weights stream.
      const int out_row = task * kTaskOut + group() * kOut + lane();
      const bool writes = lane() < kOut && part() == 0 && out_row < Segment::kN;
      float bias = 0.0f, bias_up = 0.0f, residual[kTokens] = {};
      if (writes) {
        if constexpr (Segment::kBias) bias = args.bias[kSegment][out_row];
        if constexpr (Segment::kBias && kPairs) bias_up = args.bias[kSegment + 1][out_row];
        if constexpr (spec::kEpilogue == kEpilogueResidual) {
#pragma unroll
          for (int t = 0; t < kTokens; ++t)
            if (token0 + t < spec::kM)
              residual[t] = args.residual[(token0 + t) * args.y_stride[kSegment] + out_row];
        }
      }
      float acc[kRows][kTokens] = {};
      auto columns = begin;
      constexpr int kTrips = S::kPaddedIters / kDepth - 1,
                    kUnroll = S::kPaddedIters <= kUnrolledIters ? max_of(1, kTrips) : 1;
#pragma unroll kUnroll
      for (int k = 0; k < S::kPaddedIters - kDepth; k += kDepth) {
#pragma unroll
        for (int d = 0; d < kDepth; ++d) {
          consume<Segment>(view, columns, ring[d], k, d, acc, [&] {
            // Only slots behind that of the last iteration can be without one more.
            if (d <= (S::kIters - 1) % kDepth || k + kDepth + d < S::kIters)
              fetch<Segment>(rows, k, kDepth + d, ring[d]);
          });
        }
        rows.advance(kDepth);
        columns.advance(kDepth);
      }
      constexpr int kLast = S::kPaddedIters - kDepth;
      if (next < kTasks) find<Segment, kSegment>(args, next, rows);
#pragma unroll
      for (int d = 0; d < kDepth; ++d) {
        const auto fetch_next = [&] {
          if (d < S::kIters && next < kTasks) fetch<Segment>(rows, 0, d, ring[d]);
        };
        if (kLast + d < S::kIters) {
          consume<Segment>(view, columns, ring[d], kLast, d, acc, fetch_next);
        } else {
          fetch_next();
        }
      }

      float sum[kTokens][kPairs ? 2 : 1];  // of the row that this lane writes
#pragma unroll
      for (int t = 0; t < kTokens; ++t)
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          const float total = warp_sum<kLanes>(acc[r][t]);
          if (kPairs ? r < 2 || lane() == r / 2 : r == 0 || lane() == r) sum[t][kPairs ? r % 2 : 0] = total;
        }
      const int buffer = i % 2, slot = group() * kOut + lane();
      if constexpr (kSplit > 1) {
        if (part() > 0 && lane() < kOut) {
#pragma unroll
          for (int t = 0; t < kTokens; ++t)
#pragma unroll
            for (int e = 0; e < (kPairs ? 2 : 1); ++e)
              parts[buffer][team()][part() - 1][slot][t][e] = sum[t][e];
        }
        sync_some<kWarp * kSplit>(1 + team());
        if (part() == 0 && lane() < kOut) {
#pragma unroll
          for (int p = 0; p < kSplit - 1; ++p)
#pragma unroll
            for (int t = 0; t < kTokens; ++t)
#pragma unroll
              for (int e = 0; e < (kPairs ? 2 : 1); ++e) sum[t][e] += parts[buffer][team()][p][slot][t][e];
        }
      }
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
        float v = sum[t][0] * view.factor(t) + bias;
        if constexpr (kPairs) v = silu(v) * (sum[t][1] * view.factor(t) + bias_up);
        if constexpr (kQuantise) {
          if (lane() < kOut && part() == 0)
            results[i / kPasses % 2][team() / kBlockTeams][t][out_row % kActBlock] = writes ? v : 0.0f;
        } else {
          if (writes && token0 + t < spec::kM)
            args.y[kSegment][(token0 + t) * args.y_stride[kSegment] + out_row] = v + residual[t];
        }
      }
      if constexpr (kQuantise) {
        if (i % kPasses == kPasses - 1) {
          sync_some<kWarp * kSplit * kBlockTeams>(9 + team() / kBlockTeams);
          // The team that made the block's first results quantises it.
          if (team() % kBlockTeams == 0 && part() == 0) {
#pragma unroll
            for (int t = 0; t < kTokens; ++t)
              if (token0 + t < spec::kM)
                write_blocks(results[i / kPasses % 2][team() / kBlockTeams][t][threadIdx.x % kActBlock],
                             args.yq,
                             static_cast<uint64_t>(token0 + t) * (round_up(Segment::kN, 32) / kActBlock) +
                                 task * kTaskOut / kActBlock,
                             false);
          }
        }
      }
      if (i == 0) APR_MARK(5);
      task = next;
    }
  }

  template <int kIndex>
  using SegmentAt = typename spec::Segments::template At<kIndex>::type;

  static constexpr int kWalks = kPairs ? 1 : spec::kSegments;  // a pair of segments is walked as one

  // Tasks of all segments before kIndex.
  template <int kIndex>
  static constexpr int tasks_before() {
    if constexpr (kIndex == 0) {
      return 0;
    } else {
      return tasks_before<kIndex - 1>() + tasks<SegmentAt<kIndex - 1>>();
    }
  }
  static constexpr int kTotalTasks = tasks_before<kWalks>();

  template <int kIndex>
  static constexpr int ring_words() {
    if constexpr (kIndex == 0) {
      return 1;
    } else {
      return max_of(ring_words<kIndex - 1>(),
                    ceil_div(sizeof(typename SegmentAt<kIndex - 1>::Layout::Raw), 4));
    }
  }
  // The ring as words, whichever segment the warp begins with: the first loads are in flight across the
  // prologue.
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

  // A team's first task in segment kIndex: tasks are numbered through all segments and dealt to teams in
  // turn.
  template <int kIndex>
  static __device__ __forceinline__ int first_task() {
    if constexpr (kQuantise) return task_at(0, 0);
    const int teams = static_cast<int>(gridDim.x) * kTeams,
              mine = team() * static_cast<int>(gridDim.x) + static_cast<int>(blockIdx.x);
    const int t = (mine - tasks_before<kIndex>()) % teams;
    return t < 0 ? t + teams : t;
  }

  // Asks the L2 for what follows the loads in flight, kAhead KiB for each multiprocessor: memory stays busy
  // while the previous kernel ends and this one prepares its activations. A lane for each row of each plane.
  template <class Segment, int kSegment>
  static __device__ __forceinline__ void ask(const LinearArgs& args, int task) {
    using Layout = typename Segment::Layout;
    using S = Shape<Segment>;
    constexpr int kMatrices = kPairs ? 2 : 1, kPlanes = Layout::kPlanes;
    constexpr int kRoom = kAhead * 1024 / (kTeams * kCtas * kTaskOut * kMatrices);  // bytes of a row
    constexpr int kWanted = max_of(
        0, min_of(S::kIters - kDepth, kRoom / max_of(1, S::kStride * Segment::Codec::kBytes)));  // iterations
    if constexpr (S::kRegular && kWanted > 0) {
      constexpr uint32_t kFrom = kDepth * S::kStride,
                         kBlocks = min_of(kWanted * S::kStride, S::kBlocks - kDepth * S::kStride);
      if (part() != 0) return;
      for (int item = threadIdx.x % kWarp; item < kTaskOut * kMatrices * kPlanes; item += kWarp) {
        const int plane = item % kPlanes, matrix = item / kPlanes % kMatrices,
                  row = task * kTaskOut + item / (kPlanes * kMatrices);
        if (row >= Segment::kN) continue;
        const Weight& w = args.w[kSegment + (kPairs ? matrix : 0)];
        const Planes<kPlanes> from = block_planes<Layout>(w, static_cast<uint32_t>(row) * S::kBlocks + kFrom),
                              to = apr::advance<Layout>(from, kBlocks);
#pragma unroll
        for (int p = 0; p < kPlanes; ++p)
          if (p == plane) prefetch_l2(from.p[p], static_cast<uint32_t>(to.p[p] - from.p[p]));
      }
    }
  }

  template <int kIndex>
  static __device__ __forceinline__ int prefetch(const LinearArgs& args, Ring& words) {
    if constexpr (kIndex < kWalks) {
      using Segment = SegmentAt<kIndex>;
      const int task = first_task<kIndex>();
      if (task < tasks<Segment>()) {
        typename Segment::Layout::Raw ring[kDepth][kRows];
        fill<Segment, kIndex>(args, task, ring);
        store(ring, words);
        ask<Segment, kIndex>(args, task);
        return kIndex;
      }
      return prefetch<kIndex + 1>(args, words);
    }
    return kWalks;
  }

  template <int kIndex>
  static __device__ __forceinline__ void walk(const View& view, const LinearArgs& args, int token0,
                                              int prefetched, const Ring& words) {
    if constexpr (kIndex < kWalks) {
      using Segment = SegmentAt<kIndex>;
      const int task = first_task<kIndex>();
      if (task < tasks<Segment>()) {
        typename Segment::Layout::Raw ring[kDepth][kRows];
        if (prefetched == kIndex) {
          restore(words, ring);
        } else {
          fill<Segment, kIndex>(args, task, ring);
        }
        tasks_of_team<Segment, kIndex>(view, args, token0, task, ring);
      }
      walk<kIndex + 1>(view, args, token0, prefetched, words);
    }
  }

  static __device__ __forceinline__ void run(const LinearArgs& args) {
    const int token0 = static_cast<int>(blockIdx.y) * kTokens;
    Ring words;
    APR_MARK(0);
    const int prefetched = prefetch<0>(args, words);
    APR_MARK(1);
    View view;
    view.prologue(args, token0);
    APR_MARK(4);
    walk<0>(view, args, token0, prefetched, words);
    APR_MARK(6);
  }

  // One wave of at most kCtas CTAs a multiprocessor, no larger than the work.
  static constexpr int grid() {
    return min_of(spec::kSms * kCtas, kQuantise ? ceil_div(kTotalTasks, kBlockTasks * kBlocksAtOnce)
                                                : ceil_div(kTotalTasks, kTeams));
  }
};

}  // namespace apr
