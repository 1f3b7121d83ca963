// One tile of Y = X W^T on tensor cores (mma.sync). X arrives as 16-bit terms (ActHalf) by asynchronous
// copies; chunks of W are loaded one tile ahead into registers and decoded into shared memory behind the
// products. With two bf16 terms on each side a product is x0 w0 + x0 w1 + x1 w0: 16 bits of both, what is
// left out is 2^-16 of the result.
#pragma once

#include "tile_activation.h"
#include "tile_codec.h"

namespace apr {

// Smallest power of two so that no chunk of the codec reaches beyond an aligned window of that many columns;
// a tile of so many columns holds whole chunks.
template <class Codec>
constexpr int chunk_window() {
  for (int window = 16; window < Codec::kBlock; window *= 2) {
    bool whole = Codec::kBlock % window == 0;
    for (int c = 0; c < block_chunks<Codec>() && whole; ++c)
      for (int r = 0; r < Codec::kRuns; ++r)
        if (Codec::col(c, r) / window != Codec::col(c, 0) / window ||
            (Codec::col(c, r) + Codec::kRun - 1) / window != Codec::col(c, 0) / window)
          whole = false;
    // Chunks of one window must be neighbours, so that chunk i of a tile is found by counting.
    const int per_window = window / chunk_columns<Codec>();
    for (int c = 0; c < block_chunks<Codec>() && whole; ++c)
      if (per_window == 0 || Codec::col(c, 0) / window != c / per_window) whole = false;
    if (whole) return window;
  }
  return Codec::kBlock;
}

// Columns that hold whole windows of every segment's codec.
template <int kIndex>
constexpr int common_window() {
  if constexpr (kIndex == 0) {
    return 16;
  } else {
    constexpr int kWindow = chunk_window<typename spec::Segments::template At<kIndex - 1>::type::Codec>();
    int all = common_window<kIndex - 1>();
    while (all % kWindow != 0) all += common_window<kIndex - 1>();
    return all;
  }
}

// 16-byte units of a row are permuted so that eight rows of one unit column fall into distinct banks; where their
// number is no power of two, an odd distance of rows does that.
template <int kBk>
inline constexpr bool kPermuted = (kBk & (kBk - 1)) == 0;
template <int kBk>
inline constexpr int kRowUnits = kPermuted<kBk> ? kBk / 8 : kBk / 8 | 1;
template <int kBk>
APR_DEV uint32_t unit_offset(int row, int unit) {
  constexpr int kUnits = kRowUnits<kBk>;
  const int turn = !kPermuted<kBk> ? 0 : kUnits >= 8 ? row & 7 : (row >> 1) & (kUnits - 1);
  return static_cast<uint32_t>((row * kUnits + (unit ^ turn)) * 16);
}

// {q, q'} as f16x2 from bytes i and i+1 of a quad of int8: 0x6400 | (q + 128) is 1152 + q exactly.
template <int kPair>
APR_DEV uint32_t quad_halves(uint32_t biased) {
  uint32_t v = __byte_perm(biased, 0x64646464u, kPair == 0 ? 0x4140 : 0x4342), r;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(r) : "r"(v), "r"(0x64806480u));
  return r;
}
APR_DEV uint32_t fma_halves(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t r;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
  return r;
}

template <int kBn, int kSegments>
constexpr int tiles_of() {
  if constexpr (kSegments == 0) {
    return 0;
  } else {
    return tiles_of<kBn, kSegments - 1>() +
           ceil_div(spec::Segments::template At<kSegments - 1>::type::kN, kBn);
  }
}
// CTAs that share a tile, for 512 tokens (four tiles of 128): the number whose rounds over the device take
// least. Sharing costs an exchange of sums, and clusters do not fill a device to the last multiprocessor.
template <int kBn>
constexpr int gemm_split(int ctas) {
  if (spec::kArch < 90) return 1;
  const int tiles = 4 * tiles_of<kBn, spec::kSegments>(), slots = spec::kSms * ctas;
  const int cost = spec::kInput == kInputBf16x2 ? 15 : 20;  // percent of the time, for each doubling
  int best = 1, least = ceil_div(tiles, slots) * 400;
  for (int s = 2, doublings = 1; s <= 4; s *= 2, ++doublings) {
    const int time = ceil_div(tiles * s * 10, slots * 9) * 4 * (100 + doublings * cost) / s;
    if (time < least) best = s, least = time;
  }
  return best;
}

// kSplit CTAs of a cluster share a tile: each has its part of the columns, and in the end each finishes its
// part of the rows from all the others' sums, in shared memory.
template <int kBm, int kBn, int kStages, int kSplit>
struct Gemm {
  static constexpr int kThreads = 256;
  static constexpr int kBk = round_up(spec::bk != 0                  ? spec::bk
                                      : spec::kInput == kInputBf16x2 ? 32
                                                                     : 64,
                                      common_window<spec::kSegments>());
  static constexpr bool kBf16 = spec::kInput == kInputBf16x2;
  static constexpr int kTermsX = spec::kInput == kInputF16 ? 1 : 2, kTermsW = kBf16 ? 2 : 1;
  static constexpr int kWarpM = kBm / 2, kWarpN = kBn / 4;  // 2 x 4 warps
  static constexpr int kTilesM = kWarpM / 16, kFragsN = kWarpN / 8;
  static constexpr int kBytesX = kBm * kRowUnits<kBk> * 16,  // of one term of one stage
      kBytesW = kBn * kRowUnits<kBk> * 16;
  static constexpr int kSumStride = kBn + 4;  // floats of a row of sums
  static constexpr int kShared =
      max_of(kStages * kTermsX * kBytesX + 2 * kTermsW * kBytesW, kSplit > 1 ? kBm * kSumStride * 4 : 0);
  static constexpr int kPaddedK = round_up(spec::kK, 64);
  static constexpr int kSteps = ceil_div(spec::kK, kBk);
  static constexpr bool kPairs = spec::kEpilogue == kEpilogueSwiglu;
  static constexpr int kWalks = kPairs ? 1 : spec::kSegments;
  static_assert(kSplit == 1 || spec::kArch >= 90, "clusters need compute capability 9.0");
  static_assert(kTilesM >= 1 && kFragsN % 2 == 0, "a warp has whole fragments");

  template <int kIndex>
  using SegmentAt = typename spec::Segments::template At<kIndex>::type;

  template <int kIndex>
  static constexpr int tiles_before() {
    if constexpr (kIndex == 0) {
      return 0;
    } else {
      return tiles_before<kIndex - 1>() +
             ceil_div(kPairs ? 2 * SegmentAt<kIndex - 1>::kN : SegmentAt<kIndex - 1>::kN, kBn);
    }
  }
  static constexpr int kTilesN = tiles_before<kWalks>();

  // The feature that row r of the W tile holds, and from which of a pair of segments: a warp's columns are
  // half gate, half up, so that one thread has both of a product.
  static __device__ __forceinline__ int feature(int tile, int r, int& part) {
    if constexpr (kPairs) {
      const int within = r % kWarpN;
      part = within >= kWarpN / 2;
      return tile * (kBn / 2) + r / kWarpN * (kWarpN / 2) + within % (kWarpN / 2);
    }
    part = 0;
    return tile * kBn + r;
  }

  template <class Segment, int kSegment>
  struct WeightTile {
    using Codec = typename Segment::Codec;
    using Layout = typename Segment::Layout;
    static constexpr int kBlocks = ceil_div(spec::kK, Codec::kBlock);  // of a row
    static constexpr int kChunks = kBlocks * block_chunks<Codec>();
    static constexpr int kRowChunks = kBk / chunk_columns<Codec>();  // of a tile's row
    static constexpr int kPerThread = ceil_div(kBn * kRowChunks, kThreads);
    typename Layout::Raw raw[kPerThread];

    static __device__ __forceinline__ bool place(int i, int& row, int& c) {
      const int id = i * kThreads + threadIdx.x;
      row = id / kRowChunks;
      c = id % kRowChunks;
      return kBn * kRowChunks % kThreads == 0 || row < kBn;
    }

    __device__ __forceinline__ void fetch(const LinearArgs& args, int tile, int step) {
#pragma unroll
      for (int i = 0; i < kPerThread; ++i) {
        int row, c, part;
        if (!place(i, row, c)) continue;
        c += step * kRowChunks;
        if constexpr (kSteps * kRowChunks != kChunks) c = min(c, kChunks - 1);
        const int n = min(feature(tile, row, part), Segment::kN - 1);
        const int block = c / block_chunks<Codec>();
        const Weight& w = args.w[kSegment + (kPairs ? part : 0)];
        raw[i] = Layout::load(block_planes<Layout>(w, static_cast<uint32_t>(n) * kBlocks + block),
                              c % block_chunks<Codec>());
      }
    }

    __device__ __forceinline__ void decode(uint8_t* shared, int step, float w_scale) const {
#pragma unroll
      for (int i = 0; i < kPerThread; ++i) {
        int row, c;
        if (!place(i, row, c)) continue;
        const int chunk = (step * kRowChunks + c) % block_chunks<Codec>();
        const bool beyond = kSteps * kRowChunks != kChunks && step * kRowChunks + c >= kChunks;
        // The block's first column, counted from the tile's.
        const int first = (step * kRowChunks + c) / block_chunks<Codec>() * Codec::kBlock - step * kBk;
        if constexpr (Codec::kInteger && !kBf16) {
          IntChunk<Codec::kRuns, Codec::kRun> q;
          Layout::decode(raw[i], chunk, q);
#pragma unroll
          for (int run = 0; run < Codec::kRuns; ++run) {
            const float scale = beyond ? 0.0f : q.scale[run] * w_scale;
            const uint32_t s = pack_f16(scale, scale);
            uint32_t o = 0;
            if constexpr (Codec::kOffset) {
              const float offset = beyond ? 0.0f : q.offset[run] * w_scale;
              o = pack_f16(offset, offset);
            }
            uint32_t out[Codec::kRun / 2];
#pragma unroll
            for (int j = 0; j < Codec::kRun / 4; ++j) {
              const uint32_t biased = q.q[run][j] ^ 0x80808080u;
              out[2 * j] = fma_halves(quad_halves<0>(biased), s, o);
              out[2 * j + 1] = fma_halves(quad_halves<1>(biased), s, o);
            }
            put(shared, row, first + Codec::col(chunk, run), out);
          }
        } else {
          FloatChunk<Codec::kRuns, Codec::kRun> v;
          decode_floats<Codec, Layout>(raw[i], chunk, v);
#pragma unroll
          for (int run = 0; run < Codec::kRuns; ++run) {
            uint32_t hi[Codec::kRun / 2], lo[Codec::kRun / 2];
#pragma unroll
            for (int j = 0; j < Codec::kRun / 2; ++j) {
              const float a = beyond ? 0.0f : v.v[run][2 * j], b = beyond ? 0.0f : v.v[run][2 * j + 1];
              if constexpr (kBf16) {
                hi[j] = pack_bf16(a, b);
                lo[j] = pack_bf16(a - bf16_lo(hi[j]), b - bf16_hi(hi[j]));
              } else {
                hi[j] = pack_f16(a * w_scale, b * w_scale);
              }
            }
            const int column = first + Codec::col(chunk, run);
            put(shared, row, column, hi);
            if constexpr (kBf16) put(shared + kBytesW, row, column, lo);
          }
        }
      }
    }

    static __device__ __forceinline__ void put(uint8_t* shared, int row, int column,
                                               const uint32_t (&v)[Codec::kRun / 2]) {
      if constexpr (run_alignment<Codec>() % 8 == 0) {  // whole units
#pragma unroll
        for (int u = 0; u < Codec::kRun / 8; ++u)
          *reinterpret_cast<U4*>(shared + unit_offset<kBk>(row, column / 8 + u)) = {
              v[4 * u], v[4 * u + 1], v[4 * u + 2], v[4 * u + 3]};
      } else {
#pragma unroll
        for (int u = 0; u < Codec::kRun / 4; ++u)
          *reinterpret_cast<U2*>(shared + unit_offset<kBk>(row, (column + 4 * u) / 8) +
                                 (column + 4 * u) % 8 * 2) = {v[2 * u], v[2 * u + 1]};
      }
    }
  };

  // Asynchronous copies of one stage of X. Rows past the last are copies of the last; columns past the row
  // are zeros.
  static __device__ __forceinline__ void fetch_x(const LinearArgs& args, int rows, int row0, int step,
                                                 uint32_t shared) {
    constexpr int kUnits = kBm * (kBk / 8);
#pragma unroll
    for (int i = 0; i < ceil_div(kUnits, kThreads); ++i) {
      const int id = i * kThreads + threadIdx.x, row = id / (kBk / 8), unit = id % (kBk / 8);
      if (kUnits % kThreads != 0 && id >= kUnits) break;
      const int column = step * kBk + 8 * unit;
      const uint64_t at = static_cast<uint64_t>(min(row0 + row, rows - 1)) * kPaddedK + column;
#pragma unroll
      for (int term = 0; term < kTermsX; ++term) {
        const uint32_t to = shared + term * kBytesX + unit_offset<kBk>(row, unit);
        if (kPaddedK % kBk == 0 || column < kPaddedK) {
          copy_async16(to, args.xh.term[term] + at);
        } else {
          asm volatile("st.shared.v4.u32 [%0], {%1,%1,%1,%1};" ::"r"(to), "r"(0));
        }
      }
    }
  }

  static constexpr int kResultFrags = kPairs ? kFragsN / 2 : kFragsN;

  // One result: v from the tile's column r, and with SwiGLU up from the column of the same feature.
  template <class Segment, int kSegment>
  static __device__ __forceinline__ void finish(const LinearArgs& args, int tile_n, int row, int r, float v,
                                                float up) {
    int part;
    const int column = feature(tile_n, r, part);
    if (column >= Segment::kN) return;
    if constexpr (Segment::kBias) v += args.bias[kSegment][column];
    if constexpr (kPairs) {
      if constexpr (Segment::kBias) up += args.bias[kSegment + 1][column];
      v = silu(v) * up;
    }
    const uint64_t at = static_cast<uint64_t>(row) * args.y_stride[kSegment] + column;
    if constexpr (spec::kEpilogue == kEpilogueResidual) v += args.residual[at];
    args.y[kSegment][at] = v;
  }

  template <class Segment, int kSegment>
  static __device__ __forceinline__ void tile(const LinearArgs& args, int tile_n, int tile_m) {
    extern __shared__ __align__(128) uint8_t memory[];
    uint8_t* shared_w = memory + kStages * kTermsX * kBytesX;
    const uint32_t x_at = shared_address(memory), w_at = shared_address(shared_w);
    const int row0 = tile_m * kBm;
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    const int warp_m = warp / 4 * kWarpM, warp_n = warp % 4 * kWarpN;
    const float w_scale = kBf16 ? 1.0f : args.w_scale[kSegment];

    WeightTile<Segment, kSegment> weights;
    const int rank = kSplit == 1 ? 0 : static_cast<int>(blockIdx.x) % kSplit;
    const int first = kSteps * rank / kSplit, steps = kSteps * (rank + 1) / kSplit - first;  // of this CTA
    weights.fetch(args, tile_n, first);
    pdl_wait();
    const int rows = *args.m;
    if (row0 >= rows) return;
#pragma unroll
    for (int s = 0; s < kStages - 1; ++s) {
      if (s < steps) fetch_x(args, rows, row0, first + s, x_at + s * kTermsX * kBytesX);
      copy_async_commit();
    }
    weights.decode(shared_w, first, w_scale);

    float acc[kTilesM][kFragsN][4] = {};
    for (int step = 0; step < steps; ++step) {
      copy_async_wait<kStages - 2>();
      __syncthreads();  // this step's X and W are there, and nobody reads the buffers of the step before
      const int ahead = step + kStages - 1;
      if (ahead < steps)
        fetch_x(args, rows, row0, first + ahead, x_at + ahead % kStages * (kTermsX * kBytesX));
      copy_async_commit();
      if (step + 1 < steps) weights.fetch(args, tile_n, first + step + 1);
      const uint32_t x_stage = x_at + step % kStages * (kTermsX * kBytesX),
                     w_stage = w_at + step % 2 * (kTermsW * kBytesW);
#pragma unroll
      for (int k = 0; k < kBk / 16; ++k) {
        uint32_t w[kTermsW][kFragsN / 2][4];
#pragma unroll
        for (int term = 0; term < kTermsW; ++term)
#pragma unroll
          for (int n = 0; n < kFragsN / 2; ++n)
            // Matrices 0, 1: features 0-7, columns 0-7 and 8-15; 2, 3: features 8-15.
            load_matrix4(w[term][n], w_stage + term * kBytesW +
                                         unit_offset<kBk>(warp_n + 16 * n + lane / 16 * 8 + lane % 8,
                                                          2 * k + lane / 8 % 2));
#pragma unroll
        for (int term = 0; term < kTermsX; ++term)
#pragma unroll
          for (int m = 0; m < kTilesM; ++m) {
            uint32_t x[4];
            // Matrices 0, 1: rows 0-7 and 8-15, columns 0-7; 2, 3: columns 8-15.
            load_matrix4(x, x_stage + term * kBytesX +
                                unit_offset<kBk>(warp_m + 16 * m + lane % 16, 2 * k + lane / 16));
#pragma unroll
            for (int n = 0; n < kFragsN; ++n) {
              if constexpr (kBf16) {
                mma_bf16(acc[m][n], x, w[0][n / 2][n % 2 * 2], w[0][n / 2][n % 2 * 2 + 1]);
                if (term == 0) mma_bf16(acc[m][n], x, w[1][n / 2][n % 2 * 2], w[1][n / 2][n % 2 * 2 + 1]);
              } else {
                mma_f16(acc[m][n], x, w[0][n / 2][n % 2 * 2], w[0][n / 2][n % 2 * 2 + 1]);
              }
            }
          }
      }
      if (step + 1 < steps)
        weights.decode(shared_w + (step + 1) % 2 * (kTermsW * kBytesW), first + step + 1, w_scale);
    }
    pdl_launch();

    const float w_inverse = 1.0f / w_scale;
    if constexpr (kSplit == 1) {
#pragma unroll
      for (int m = 0; m < kTilesM; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int row = row0 + warp_m + 16 * m + lane / 4 + 8 * h;
          if (row >= rows) continue;
          const float factor = args.xh.scale[row] * w_inverse;
#pragma unroll
          for (int n = 0; n < kResultFrags; ++n)
#pragma unroll
            for (int e = 0; e < 2; ++e)
              finish<Segment, kSegment>(args, tile_n, row, warp_n + 8 * n + lane % 4 * 2 + e,
                                        acc[m][n][2 * h + e] * factor,
                                        acc[m][n + kFragsN - kResultFrags][2 * h + e] * factor);
        }
    } else {
      __syncthreads();  // the pipeline's buffers become room for the sums
      float* sums = reinterpret_cast<float*>(memory);
#pragma unroll
      for (int m = 0; m < kTilesM; ++m)
#pragma unroll
        for (int n = 0; n < kFragsN; ++n)
#pragma unroll
          for (int h = 0; h < 2; ++h)
            *reinterpret_cast<float2*>(sums + (warp_m + 16 * m + lane / 4 + 8 * h) * kSumStride + warp_n +
                                       8 * n + lane % 4 * 2) = {acc[m][n][2 * h], acc[m][n][2 * h + 1]};
      cluster_sync();
      constexpr int kRows = kBm / kSplit, kColumns = kPairs ? kBn / 2 : kBn;
      for (int i = threadIdx.x; i < kRows * kColumns; i += kThreads) {
        const int row = rank * kRows + i / kColumns, c = i % kColumns;
        if (row0 + row >= rows) break;
        const int column = kPairs ? c / (kWarpN / 2) * kWarpN + c % (kWarpN / 2) : c;
        const uint32_t at = x_at + (row * kSumStride + column) * 4;
        float v = 0.0f, up = 0.0f;
#pragma unroll
        for (int r = 0; r < kSplit; ++r) {
          v += load_cluster(at, r);
          if constexpr (kPairs) up += load_cluster(at + kWarpN / 2 * 4, r);
        }
        const float factor = args.xh.scale[row0 + row] * w_inverse;
        finish<Segment, kSegment>(args, tile_n, row0 + row, column, v * factor, up * factor);
      }
      cluster_sync();  // nobody leaves while others read
    }
  }

  template <int kIndex>
  static __device__ __forceinline__ void dispatch(const LinearArgs& args, int tile_n, int tile_m) {
    if constexpr (kIndex < kWalks) {
      if (tile_n < tiles_before<kIndex + 1>()) {
        tile<SegmentAt<kIndex>, kIndex>(args, tile_n - tiles_before<kIndex>(), tile_m);
      } else {
        dispatch<kIndex + 1>(args, tile_n, tile_m);
      }
    }
  }

  static __device__ __forceinline__ void run(const LinearArgs& args) {
    // Tiles of the same W rows run together, so that W is read from memory once.
    const int id = static_cast<int>(blockIdx.y * gridDim.x + blockIdx.x) / kSplit;
    dispatch<0>(args, id / static_cast<int>(gridDim.y), id % static_cast<int>(gridDim.y));
  }
};

}  // namespace apr
