/*
name = "gemv_int"
op = "linear"
view = "int"
m = [1, 8]
layouts = ["planar", "row_major"]
arch = 80
features = []
summary = "GEMV over the integer view: int8 activations in shared memory, dp4a, weights streamed through registers"
[params]
lanes = { values = [0, 4, 8, 16, 32], default = 0, meaning = "lanes that share a row; 0, here and below: chosen from the shape" }
rows = { values = [0, 1, 2, 4], default = 0, meaning = "rows that a group of lanes computes at once" }
depth = { values = [0, 1, 2, 3, 4, 5, 6, 7, 8], default = 0, meaning = "iterations that loads run ahead of arithmetic" }
warps = { values = [0, 2, 4, 6, 8, 10, 12, 14, 16, 20, 24], default = 0, meaning = "warps of a CTA" }
split = { values = [0, 1, 2, 4, 8], default = 0, meaning = "warps that share a row's columns" }
ctas = { values = [0, 1, 2, 3, 4], default = 0, meaning = "CTAs of a multiprocessor" }
spare = { values = [0, 1], default = 0, meaning = "1: registers are limited so that as many CTAs of the next kernel fit beside these" }
ahead = { values = [0, 1, 32, 64, 128], default = 0, meaning = "KiB that each multiprocessor asks the L2 for before the previous kernel ends; 1: less than a row, nothing" }
[[presets]]
m = [1, 1]
k = [18944, 18944]
n = [3584, 3584]
bits = [5, 5]
capability = [90, 90]
params = { ahead = 1, depth = 1, rows = 4 }
why = "aprctl tune on an H200: 11.3 us instead of 12.3 (q4_k)"
[[presets]]
m = [1, 1]
k = [3584, 3584]
n = [3584, 3584]
bits = [5, 5]
capability = [90, 90]
params = { ctas = 1, warps = 8 }
why = "aprctl tune on an H200: 2.9 us instead of 3.3 (q4_k)"
[[presets]]
m = [1, 1]
k = [3584, 3584]
n = [4608, 4608]
segments = [3, 3]
bits = [5, 7]
capability = [90, 90]
params = { ctas = 1, depth = 5 }
why = "aprctl tune on an H200: 5.5 us instead of 5.6 (q4_k and q6_k)"
*/
#include "tile_gemv.h"

namespace apr {

constexpr GemvChoice kChoice =
    choose_gemv({spec::lanes, spec::rows, spec::depth, spec::warps, spec::split, spec::ctas, spec::ahead},
                spec::kInput != kInputInt8);

struct IntView {
  static constexpr int kThreads = kChoice.warps * kWarp;

  static constexpr int kColumns =
      round_up(gemv_columns<spec::kSegments, kChoice.lanes, kChoice.split, kChoice.depth>(), 128);
  // Per token: quants, and a scale and a sum per 16 columns; both with padding where there is room.
  static constexpr int kTokenBytes = kColumns + 2 * (kColumns / 4);
  static constexpr int kPaddedBytes =
      padded_column<true>(kColumns) + 8 * padded_block<true>(kColumns / kActBlock);
  static constexpr int kReduceBytes = 8 * kWarp * 4;  // square sums of 8 tokens and 32 warps
  static constexpr int kFit = (spec::kMaxShared - kReduceBytes) / kTokenBytes;
  static_assert(kFit >= 1, "one row of activations does not fit in shared memory");
  static constexpr int kTokens = spec::kInput == kInputInt8 ? spec::kM : min_of(spec::kM, kFit);
  static constexpr bool kPadded = kTokens * kPaddedBytes <= 64 * 1024;
  static constexpr bool kPaddedFactors =
      kPadded && gemv_strides<spec::kSegments, kChoice.lanes, kChoice.split>(256);
  static constexpr int kQuants = padded_column<kPadded>(kColumns);
  static constexpr int kFactors = padded_block<kPaddedFactors>(kColumns / kActBlock);
  // Activations that are quantised already are read where they are, through L1: nothing to prepare, nothing
  // to wait for.
  static constexpr bool kDirect = spec::kInput == kInputInt8;
  static constexpr int kPaddedK = round_up(spec::kK, 32);
  static_assert(!kDirect || !spec::kNorm, "a norm needs float activations");
  static constexpr int kShared =
      kDirect ? 0 : kReduceBytes + kTokens * (kQuants + kFactors * static_cast<int>(sizeof(float2)));

  // A table's values as two words, which one more product each joins: cheaper than choosing between them.
  template <class Codec>
  static constexpr bool kSplit = requires {
    requires Codec::kSplit;
  };
  template <class Codec>
  using Decoded = typename SelectType<kSplit<Codec>, SplitChunk<Codec::kRuns, Codec::kRun>,
                                      IntChunk<Codec::kRuns, Codec::kRun>>::type;

  struct Shared {
    float* squares;  // [kTokens][warps]
    uint8_t* q;      // [kTokens][kQuants]
    float2* factor;  // [kTokens][kFactors]: scale, sum
  };
  static __device__ __forceinline__ Shared shared() {
    extern __shared__ __align__(16) uint8_t memory[];
    Shared s;
    s.squares = reinterpret_cast<float*>(memory);
    s.q = memory + kReduceBytes;
    s.factor = reinterpret_cast<float2*>(s.q + kTokens * kQuants);
    return s;
  }

  template <class Segment>
  static __device__ __forceinline__ void decode(const typename Segment::Layout::Raw& raw, int chunk,
                                                Decoded<typename Segment::Codec>& out) {
    Segment::Layout::decode(raw, chunk, out);
  }

  // Columns that surely lie in one block of activations, wherever a run begins: they share its scale.
  template <class Codec>
  static constexpr int part_columns() {
    return min_of(run_alignment<Codec>(), kActBlock);
  }
  // Where activations are: in memory, or in shared memory.
  struct DirectPlace {
    const uint8_t* q;
    const float *scale, *sum;
    static __device__ __forceinline__ DirectPlace origin(const LinearArgs& args, int token0) {
      const uint64_t first = static_cast<uint64_t>(token0) * (kPaddedK / kActBlock);
      return {reinterpret_cast<const uint8_t*>(args.xq.q) + kActBlock * first, args.xq.scale + first,
              args.xq.sum + first};
    }
    __device__ __forceinline__ DirectPlace plus(int quants, int blocks) const {
      return {q + quants, scale + blocks, sum + blocks};
    }
    __device__ __forceinline__ const uint8_t* quants(int token) const { return q + token * kPaddedK; }
    // Scale and sum; the sum only where it is wanted.
    template <bool kSum>
    __device__ __forceinline__ float2 factor(int token) const {
      const int at = token * (kPaddedK / kActBlock);
      return {scale[at], kSum ? sum[at] : 0.0f};
    }
  };
  struct SharedPlace {
    const uint8_t* q;
    const float2* of_block;
    static __device__ __forceinline__ SharedPlace origin(const LinearArgs&, int) {
      return {shared().q, shared().factor};
    }
    __device__ __forceinline__ SharedPlace plus(int quants, int blocks) const {
      return {q + quants, of_block + blocks};
    }
    __device__ __forceinline__ const uint8_t* quants(int token) const { return q + token * kQuants; }
    template <bool kSum>
    __device__ __forceinline__ float2 factor(int token) const {
      const float2* const at = of_block + token * kFactors;
      if constexpr (kSum) return *at;
      return {at->x, 0.0f};
    }
  };
  using Place = typename SelectType<kDirect, DirectPlace, SharedPlace>::type;

  // Where a lane's activations lie. One place is held when those of a chunk's other runs, and parts of runs, are
  // at constant distances from it, and it advances by constants when the codec's geometry allows that.
  template <class Codec, class Shape>
  struct Columns {
    static constexpr int kPart = part_columns<Codec>(), kParts = Codec::kRun / kPart;
    static constexpr bool kPadQuants = !kDirect && kPadded, kPadBlocks = !kDirect && kPaddedFactors;
    static constexpr int kColumnStride = Shape::kStride * Codec::kBlock;  // of an iteration
    static constexpr bool kRegular = Shape::kRegular && (!kPadQuants || kColumnStride % 128 == 0);
    static constexpr int kQuantStride = padded_column<kPadQuants>(kColumnStride),
                         kBlockStride = padded_block<kPadBlocks>(kColumnStride / kActBlock);
    static constexpr __device__ __forceinline__ int column(int chunk, int run, int part) {
      return chunk / block_chunks<Codec>() * Codec::kBlock + Codec::col(chunk % block_chunks<Codec>(), run) +
             part * kPart;
    }
    static constexpr __device__ __forceinline__ int quant(int column) {
      return padded_column<kPadQuants>(column);
    }
    static constexpr __device__ __forceinline__ int block(int column) {
      return padded_block<kPadBlocks>(column / kActBlock);
    }
    static constexpr bool constant_distances() {
      // Padding repeats every 256 columns.
      for (int chunk = 0; chunk < 256 / kActBlock * block_chunks<Codec>(); ++chunk)
        for (int run = 0; run < Codec::kRuns; ++run)
          for (int part = 0; part < kParts; ++part) {
            const int from = column(chunk, 0, 0), to = column(chunk, run, part), here = column(0, run, part),
                      first = column(0, 0, 0);
            if (quant(to) - quant(from) != quant(here) - quant(first) ||
                block(to) - block(from) != block(here) - block(first))
              return false;
          }
      return true;
    }
    static constexpr bool kConstant = constant_distances();
    static constexpr int kHeld = kConstant ? 1 : Codec::kRuns * kParts;
    Place place[kHeld];

    static __device__ __forceinline__ Place at(const IntView& view, int column) {
      return view.origin.plus(quant(column), block(column));
    }
    __device__ __forceinline__ void set(const IntView& view, int chunk) {
      if constexpr (kRegular) {
#pragma unroll
        for (int i = 0; i < kHeld; ++i) place[i] = at(view, column(chunk, i / kParts, i % kParts));
      }
    }
    __device__ __forceinline__ void advance(int iters) {
      if constexpr (kRegular) {
#pragma unroll
        for (int i = 0; i < kHeld; ++i) place[i] = place[i].plus(iters * kQuantStride, iters * kBlockStride);
      }
    }
    __device__ __forceinline__ Place find(const IntView& view, int run, int part, int iter, int chunk) const {
      if constexpr (!kRegular) {
        return at(view, column(chunk, run, part));
      } else if constexpr (kConstant) {
        const int to = column(0, run, part), first = column(0, 0, 0);
        return place[0].plus(quant(to) - quant(first) + iter * kQuantStride,
                             block(to) - block(first) + iter * kBlockStride);
      } else {
        return place[run * kParts + part].plus(iter * kQuantStride, iter * kBlockStride);
      }
    }
  };

  // acc[r][t] += one chunk of kRows rows times the activations of kTokens tokens.
  template <class Codec, class Shape, int kRows>
  __device__ __forceinline__ void dot(const Decoded<Codec> (&w)[kRows], const Columns<Codec, Shape>& columns,
                                      int iter, int chunk, bool whole, float (&acc)[kRows][kTokens]) const {
    constexpr int kPart = part_columns<Codec>();
    constexpr bool kStored = Codec::kOffset && kPart == kActBlock;
#pragma unroll
    for (int run = 0; run < Codec::kRuns; ++run) {
#pragma unroll
      for (int part = 0; part < Codec::kRun / kPart; ++part) {
        Place place = columns.find(*this, run, part, iter, chunk);
        const bool nothing = kDirect && !Shape::kWhole && !whole;  // shared memory has zeros there
        if (nothing) place = origin;
#pragma unroll
        for (int t = 0; t < kTokens; ++t) {
          uint32_t x[kPart / 4];
          const uint8_t* const q = place.quants(t);
          const float2 factor = place.template factor<kStored>(t);
          const float scale = nothing ? 0.0f : factor.x;
          float sum = nothing ? 0.0f : factor.y;
          if constexpr (kPart == 16) {
            const U4 v = *reinterpret_cast<const U4*>(q);
            x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
          } else if constexpr (kPart == 8) {
            const U2 v = *reinterpret_cast<const U2*>(q);
            x[0] = v.x, x[1] = v.y;
          } else {
#pragma unroll
            for (int i = 0; i < kPart / 4; ++i) x[i] = reinterpret_cast<const uint32_t*>(q)[i];
          }
          if constexpr (Codec::kOffset && !kStored) {
            int total = 0;
#pragma unroll
            for (int i = 0; i < kPart / 4; ++i) total = dot4(x[i], 0x01010101u, total);
            sum = scale * static_cast<float>(total);
          }
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
            int d = kIntegerFloat;
#pragma unroll
            for (int i = 0; i < kPart / 4; ++i) d = dot4(w[r].q[run][part * (kPart / 4) + i], x[i], d);
            if constexpr (kSplit<Codec>) {
              int minus = 0;
#pragma unroll
              for (int i = 0; i < kPart / 4; ++i)
                minus = dot4(w[r].minus[run][part * (kPart / 4) + i], x[i], minus);
              d -= minus;
            }
            acc[r][t] = fmaf(w[r].scale[run] * scale, integer_float(d), acc[r][t]);
            if constexpr (Codec::kOffset) acc[r][t] = fmaf(w[r].offset[run], sum, acc[r][t]);
          }
        }
      }
    }
  }

  __device__ __forceinline__ void prologue(const LinearArgs& args, int token0) {
    origin = Place::origin(args, token0);
    if constexpr (kDirect) {
      pdl_wait();
      pdl_launch();
    } else {
      quantise(args, token0);
    }
  }

  __device__ __forceinline__ void quantise(const LinearArgs& args, int token0) {
    const Shared s = shared();
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    pdl_wait();
    pdl_launch();
    APR_MARK(2);
#pragma unroll 1
    for (int t = 0; t < kTokens; ++t) {
      const int row = min(token0 + t, spec::kM - 1);
      {
        // The norm's factor 1 / rms does not change an 8-bit block, so it multiplies the result instead: one
        // pass over x.
        const float* x = args.x + static_cast<uint64_t>(row) * spec::kK;
        constexpr int kUnits = kColumns / 4;
        constexpr int kBatch = 4;  // loads in flight per thread
        float squares = 0.0f;
        for (int base = warp * kWarp; base < kUnits; base += kThreads * kBatch) {
          float4 v[kBatch], n[kBatch];
#pragma unroll
          for (int i = 0; i < kBatch; ++i) {
            v[i] = load_columns<spec::kK>(x, 4 * (base + i * kThreads + lane));
            if constexpr (spec::kNorm)
              n[i] = load_columns<spec::kK>(args.norm, 4 * (base + i * kThreads + lane));
          }
#pragma unroll
          for (int i = 0; i < kBatch; ++i) {
            const int unit = base + i * kThreads + lane;
            if (base + i * kThreads >= kUnits) break;  // a whole warp: kUnits is a multiple of 32
            if constexpr (spec::kNorm) {
              squares += square_sum(v[i]);
              v[i] = times(v[i], n[i]);
            }
            float scale, sum;
            const uint32_t quad = quantize_quad(v[i], scale, sum);
            *reinterpret_cast<uint32_t*>(s.q + t * kQuants + padded_column<kPadded>(4 * unit)) = quad;
            if (unit % 4 == 0) s.factor[t * kFactors + padded_block<kPaddedFactors>(unit / 4)] = {scale, sum};
          }
        }
        if constexpr (spec::kNorm) {
          squares = warp_sum(squares);
          if (lane == 0) s.squares[t * kChoice.warps + warp] = squares;
        }
      }
    }
    APR_MARK(3);
    __syncthreads();
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      inverse_rms[t] = 1.0f;
      if constexpr (spec::kNorm) {
        const float total = warp_sum(lane < kChoice.warps ? s.squares[t * kChoice.warps + lane] : 0.0f);
        inverse_rms[t] = rsqrtf(total / spec::kK + args.eps);
      }
    }
  }

  Place origin;  // of column 0
  float inverse_rms[kTokens];
  __device__ __forceinline__ float factor(int token) const { return spec::kNorm ? inverse_rms[token] : 1.0f; }
};

using Kernel = Gemv<IntView, kChoice.lanes, kChoice.rows, kChoice.depth, kChoice.warps, kChoice.split,
                    kChoice.ctas, kChoice.ahead>;

}  // namespace apr

APR_LAUNCH = apr::launch_shape(apr::Kernel::grid(), apr::ceil_div(apr::spec::kM, apr::IntView::kTokens), 1,
                               apr::IntView::kThreads, apr::IntView::kShared, 0, apr::kLaunchPdl, 1, 0);

APR_KERNEL(apr::LinearArgs, apr::IntView::kThreads, apr::kChoice.ctas*(1 + apr::spec::spare)) {
  apr::Kernel::run(args);
}
