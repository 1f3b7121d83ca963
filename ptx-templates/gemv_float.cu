/*
name = "gemv_float"
op = "linear"
view = "float"
m = [1, 8]
layouts = ["planar", "row_major"]
arch = 80
features = []
summary = "GEMV over the float view: float activations in shared memory, fused multiply-add, weights streamed through registers"
[params]
lanes = { values = [0, 4, 8, 16, 32], default = 0, meaning = "lanes that share a row; 0, here and below: chosen from the shape" }
rows = { values = [0, 1, 2, 4, 8], default = 0, meaning = "rows that a group of lanes computes at once" }
depth = { values = [0, 1, 2, 3, 4, 5, 6, 7, 8], default = 0, meaning = "iterations that loads run ahead of arithmetic" }
warps = { values = [0, 2, 4, 6, 8, 10, 12, 14, 16, 20, 24], default = 0, meaning = "warps of a CTA" }
split = { values = [0, 1, 2, 4, 8], default = 0, meaning = "warps that share a row's columns" }
ctas = { values = [0, 1, 2, 3, 4], default = 0, meaning = "CTAs of a multiprocessor" }
stage = { values = [0, 1], default = 0, meaning = "1: activations go to shared memory even if nothing is to be done to them" }
spare = { values = [0, 1], default = 0, meaning = "1: registers are limited so that as many CTAs of the next kernel fit beside these" }
ahead = { values = [0, 32, 64, 128], default = 32, meaning = "KiB that each multiprocessor asks the L2 for before the previous kernel ends" }
[[presets]]
m = [1, 1]
k = [1536, 1536]
n = [17920, 17920]
bits = [32, 32]
capability = [90, 90]
params = { ahead = 0, ctas = 1, depth = 8, lanes = 16, rows = 2, warps = 14 }
why = "aprctl tune on an H200: 25.7 us instead of 26.0 (f32)"
[[presets]]
m = [1, 1]
k = [8960, 8960]
n = [1536, 1536]
bits = [32, 32]
capability = [90, 90]
params = { ahead = 0, depth = 5, rows = 1, split = 8, warps = 24 }
why = "aprctl tune on an H200: 13.0 us instead of 15.1 (f32)"
*/
#include "tile_gemv.h"

namespace apr {

template <int kSegments>
constexpr bool whole_rows() {
  if constexpr (kSegments == 0) {
    return spec::kK % 4 == 0;
  } else {
    return whole_rows<kSegments - 1>() &&
           spec::kK % spec::Segments::template At<kSegments - 1>::type::Codec::kBlock == 0;
  }
}

constexpr GemvChoice kChoice = choose_gemv(
    {spec::lanes, spec::rows, spec::depth, spec::warps, spec::split, spec::ctas, spec::ahead}, spec::kNorm);

struct FloatView {
  static constexpr int kThreads = kChoice.warps * kWarp;

  static constexpr int kColumns =
      round_up(gemv_columns<spec::kSegments, kChoice.lanes, kChoice.split, kChoice.depth>(), 4);
  static constexpr int kReduceBytes = 8 * kWarp * 4;  // square sums of 8 tokens and 32 warps
  static constexpr int kFit = (spec::kMaxShared - kReduceBytes) / (4 * kColumns);
  static_assert(kFit >= 1, "one row of activations does not fit in shared memory");
  static constexpr int kTokens = min_of(spec::kM, kFit);  // also when direct: it bounds registers
  // Activations that need no norm are read where they are, through L1: nothing to prepare, nothing to wait
  // for. Only rows of whole codec blocks, since a block reaches past the end of others.
  static constexpr bool kDirect = !spec::kNorm && spec::stage == 0 && whole_rows<spec::kSegments>();
  static constexpr int kShared = kDirect ? 0 : kReduceBytes + kTokens * 4 * kColumns;

  template <class Codec>
  using Decoded = FloatChunk<Codec::kRuns, Codec::kRun>;

  static __device__ __forceinline__ float* shared() {
    extern __shared__ __align__(16) uint8_t memory[];
    return reinterpret_cast<float*>(memory);
  }
  static __device__ __forceinline__ float* activations() { return shared() + kReduceBytes / 4; }

  template <class Segment>
  static __device__ __forceinline__ void decode(const typename Segment::Layout::Raw& raw, int chunk,
                                                Decoded<typename Segment::Codec>& out) {
    decode_floats<typename Segment::Codec, typename Segment::Layout>(raw, chunk, out);
  }

  // Where a lane's activations lie: the first column of each run of its chunk.
  template <class Codec, class Shape>
  struct Columns {
    static constexpr int kStride = Shape::kStride * Codec::kBlock;  // of an iteration
    int first[Codec::kRuns];
    static __device__ __forceinline__ int column(int chunk, int run) {
      return chunk / block_chunks<Codec>() * Codec::kBlock + Codec::col(chunk % block_chunks<Codec>(), run);
    }
    __device__ __forceinline__ void set(const FloatView&, int chunk) {
#pragma unroll
      for (int run = 0; run < Codec::kRuns; ++run) first[run] = column(chunk, run);
    }
    __device__ __forceinline__ void advance(int iters) {
#pragma unroll
      for (int run = 0; run < Codec::kRuns; ++run) first[run] += iters * kStride;
    }
    __device__ __forceinline__ int find(int run, int iter, int chunk) const {
      return Shape::kRegular ? first[run] + iter * kStride : column(chunk, run);
    }
  };

  template <class Codec, class Shape, int kRows>
  __device__ __forceinline__ void dot(const Decoded<Codec> (&w)[kRows], const Columns<Codec, Shape>& columns,
                                      int iter, int chunk, bool whole, float (&acc)[kRows][kTokens]) const {
#pragma unroll
    for (int run = 0; run < Codec::kRuns; ++run) {
      const int column = columns.find(run, iter, chunk);
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
#pragma unroll
        for (int i = 0; i < Codec::kRun / 4; ++i) {
          float4 x;
          if constexpr (kDirect) {
            x = Shape::kWhole || whole ? load4(direct + min(t, last) * spec::kK + column + 4 * i)
                                       : float4{0.0f, 0.0f, 0.0f, 0.0f};
          } else {
            x = load4(activations() + t * kColumns + column + 4 * i);
          }
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
            acc[r][t] = fmaf(w[r].v[run][4 * i], x.x, acc[r][t]);
            acc[r][t] = fmaf(w[r].v[run][4 * i + 1], x.y, acc[r][t]);
            acc[r][t] = fmaf(w[r].v[run][4 * i + 2], x.z, acc[r][t]);
            acc[r][t] = fmaf(w[r].v[run][4 * i + 3], x.w, acc[r][t]);
          }
        }
      }
    }
  }

  __device__ __forceinline__ void prologue(const LinearArgs& args, int token0) {
    if constexpr (kDirect) {
      direct = args.x + static_cast<uint64_t>(token0) * spec::kK;
      last = spec::kM % kTokens == 0 ? kTokens : spec::kM - 1 - token0;
      pdl_wait();
      pdl_launch();
    } else {
      prepare(args, token0);
    }
  }

  __device__ __forceinline__ void prepare(const LinearArgs& args, int token0) {
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    pdl_wait();
    pdl_launch();
    APR_MARK(2);
#pragma unroll 1
    for (int t = 0; t < kTokens; ++t) {
      const int row = min(token0 + t, spec::kM - 1);
      const float* x = args.x + static_cast<uint64_t>(row) * spec::kK;
      constexpr int kUnits = kColumns / 4;
      constexpr int kBatch = 4;  // loads in flight per thread
      float squares = 0.0f;
      for (int base = threadIdx.x; base < kUnits; base += kThreads * kBatch) {
        float4 v[kBatch], n[kBatch];
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
          v[i] = load_columns<spec::kK>(x, 4 * (base + i * kThreads));
          if constexpr (spec::kNorm) n[i] = load_columns<spec::kK>(args.norm, 4 * (base + i * kThreads));
        }
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
          const int unit = base + i * kThreads;
          if (unit >= kUnits) break;
          if constexpr (spec::kNorm) {
            squares += square_sum(v[i]);
            v[i] = times(v[i], n[i]);
          }
          *reinterpret_cast<float4*>(activations() + t * kColumns + 4 * unit) = v[i];
        }
      }
      if constexpr (spec::kNorm) {
        squares = warp_sum(squares);
        if (lane == 0) shared()[t * kChoice.warps + warp] = squares;
      }
    }
    APR_MARK(3);
    __syncthreads();
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      inverse_rms[t] = 1.0f;
      if constexpr (spec::kNorm) {
        const float total = warp_sum(lane < kChoice.warps ? shared()[t * kChoice.warps + lane] : 0.0f);
        inverse_rms[t] = rsqrtf(total / spec::kK + args.eps);
      }
    }
  }

  const float* direct;
  int last;  // no row past kM is read
  float inverse_rms[kTokens];
  __device__ __forceinline__ float factor(int token) const { return spec::kNorm ? inverse_rms[token] : 1.0f; }
};

using Kernel = Gemv<FloatView, kChoice.lanes, kChoice.rows, kChoice.depth, kChoice.warps, kChoice.split,
                    kChoice.ctas, spec::ahead>;

}  // namespace apr

APR_LAUNCH = apr::launch_shape(apr::Kernel::grid(), apr::ceil_div(apr::spec::kM, apr::FloatView::kTokens), 1,
                               apr::FloatView::kThreads, apr::FloatView::kShared, 0, apr::kLaunchPdl, 1, 0);

APR_KERNEL(apr::LinearArgs, apr::FloatView::kThreads, apr::kChoice.ctas*(1 + apr::spec::spare)) {
  apr::Kernel::run(args);
}
