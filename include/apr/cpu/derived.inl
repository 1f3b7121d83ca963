// CPU kernels derived from a codec. Not a header of its own: portable.hpp, avx2.hpp and avx512.hpp include it
// inside their namespace and instruction-set region, after they have defined the primitives that it uses:
//   struct Sum                                       lanes of one dot product
//   float total(const Sum&)
//   void dot_int<kGroup, kOffset>(Sum&, w, scale, offset, x, xscale, xsum, blocks of 32 columns)
//   void dot_float(Sum&, w, x, columns)              columns is a multiple of 4
//   void scale_to_float<kGroup, kOffset>(q, scale, offset, columns, w)
// So the decoding is written once, in the codec, and each instruction set only says how to multiply and add.

// Columns that are unpacked before they are multiplied: they stay in L1 between the two, for all m tokens.
template <class Codec>
inline constexpr int kStep = Codec::kBlock >= 256 ? Codec::kBlock : 256 / Codec::kBlock* Codec::kBlock;

template <class Codec>
inline constexpr int kChunks = Codec::kBlock / (Codec::kRuns * Codec::kRun);

template <class Codec>
void unpack_int(const void* row, uint64_t k0, uint64_t cols, int8_t* q, float* scale, float* offset) {
  using Layout = typename Codec::RowMajor;
  const uint8_t* block = static_cast<const uint8_t*>(row) + k0 / Codec::kBlock * Codec::kBytes;
  for (uint64_t k = 0; k < cols; k += Codec::kBlock, block += Codec::kBytes) {
#pragma GCC unroll 32
    for (int c = 0; c < kChunks<Codec>; ++c) {
      IntChunk<Codec::kRuns, Codec::kRun> chunk;
      Layout::decode(Layout::load(Planes<1>{{block}}, c), c, chunk);
      for (int r = 0; r < Codec::kRuns; ++r) {
        const int col = Codec::col(c, r);
        // Word by word: they come from scalar registers, and one wide copy of what was just stored in words
        // would wait for the stores to leave: decoding 5-bit blocks went from 29 to 43 tok/s with this.
        for (int i = 0; i < Codec::kRun / 4; ++i)
          __builtin_memcpy(q + k + col + 4 * i, &chunk.q[r][i], 4);
        scale[(k + col) / Codec::kGroup] = chunk.scale[r];
        offset[(k + col) / Codec::kGroup] = chunk.offset[r];
      }
    }
  }
}

template <class Codec>
APR_FN void block_to_float(const uint8_t* block, float* w) {
  using Layout = typename Codec::RowMajor;
#pragma GCC unroll 32
  for (int c = 0; c < kChunks<Codec>; ++c) {
    if constexpr (Codec::kInteger) {
      IntChunk<Codec::kRuns, Codec::kRun> chunk;
      Layout::decode(Layout::load(Planes<1>{{block}}, c), c, chunk);
      for (int r = 0; r < Codec::kRuns; ++r)
        for (int i = 0; i < Codec::kRun; ++i)
          w[Codec::col(c, r) + i] = chunk_value<Codec::kOffset>(chunk, r, i);
    } else {
      FloatChunk<Codec::kRuns, Codec::kRun> chunk;
      Layout::decode(Layout::load(Planes<1>{{block}}, c), c, chunk);
      for (int r = 0; r < Codec::kRuns; ++r)
        __builtin_memcpy(w + Codec::col(c, r), chunk.v[r], sizeof(float) * Codec::kRun);
    }
  }
}

using UnpackInt = void (*)(const void* row, uint64_t k0, uint64_t cols, int8_t* q, float* scale,
                           float* offset);
using QuantizeBlock = void (*)(const float* x, const float* weight, uint8_t* block);
using Gemv = void (*)(const apr_cpu_gemv* args);
using UnpackFloat = void (*)(const void* row, uint64_t k0, uint64_t cols, float* w);

// kElements: columns of one block in a file. Formats of single elements (kElements < kBlock) may start and
// end inside a codec block; the last, partial one is decoded from a padded copy.
template <class Codec, int kElements>
void unpack_float(const void* row, uint64_t k0, uint64_t cols, float* w) {
  constexpr uint64_t kElementBytes = uint64_t{Codec::kBytes} * kElements / Codec::kBlock;
  const uint8_t* block = static_cast<const uint8_t*>(row) + k0 / kElements * kElementBytes;
  uint64_t k = 0;
  for (; k + Codec::kBlock <= cols; k += Codec::kBlock, block += Codec::kBytes)
    block_to_float<Codec>(block, w + k);
  if constexpr (kElements < Codec::kBlock) {
    if (k < cols) {
      uint8_t padded[Codec::kBytes] = {};
      float values[Codec::kBlock];
      __builtin_memcpy(padded, block, (cols - k) / kElements * kElementBytes);
      block_to_float<Codec>(padded, values);
      __builtin_memcpy(w + k, values, sizeof(float) * (cols - k));
    }
  }
}

// An integer codec's floats by way of its integers: one multiplication per column instead of one decoding.
template <class Codec, UnpackInt kUnpack>
void unpack_scaled(const void* row, uint64_t k0, uint64_t cols, float* w) {
  constexpr int kGroups = kStep<Codec> / Codec::kGroup;
  alignas(64) int8_t q[kStep<Codec>];
  float scale[kGroups], offset[kGroups];
  for (uint64_t k = 0; k < cols; k += kStep<Codec>) {
    const uint64_t step = cols - k < uint64_t{kStep<Codec>} ? cols - k : uint64_t{kStep<Codec>};
    kUnpack(row, k0 + k, step, q, scale, offset);
    scale_to_float<Codec::kGroup, Codec::kOffset>(q, scale, offset, static_cast<int>(step), w + k);
  }
}

template <class Codec, UnpackInt kUnpack, int kM>
void gemv_int_m(const apr_cpu_gemv& a) {
  constexpr int kGroup =
      Codec::kGroup == 16 ? 16 : 32;  // of the primitive; wider groups are spread out below
  constexpr int kPadded = (kStep<Codec> + 31) / 32 * 32;
  // A codec block may be shorter than 32 columns: the columns up to the next multiple of 32 are zero, as the
  // activations' are.
  alignas(64) int8_t q[kPadded] = {};
  float scale[kPadded / 16] = {}, offset[kPadded / 16] = {};
  for (uint64_t n = 0; n < a.n; ++n) {
    const uint8_t* row = static_cast<const uint8_t*>(a.w) + n * a.row_bytes;
    Sum sum[kM] = {};
    for (uint64_t k = 0; k < a.k; k += kStep<Codec>) {
      const uint64_t cols = a.k - k < uint64_t{kStep<Codec>} ? a.k - k : uint64_t{kStep<Codec>};
      if (cols % 32 != 0) __builtin_memset(q + cols, 0, 32 - cols % 32);
      if constexpr (Codec::kGroup > 32) {
        float wide_scale[kPadded / Codec::kGroup], wide_offset[kPadded / Codec::kGroup];
        kUnpack(row, k, cols, q, wide_scale, wide_offset);
        for (uint64_t g = 0; g < cols / 32; ++g) {
          scale[g] = wide_scale[g * 32 / Codec::kGroup];
          offset[g] = wide_offset[g * 32 / Codec::kGroup];
        }
      } else {
        kUnpack(row, k, cols, q, scale, offset);
        if (cols % 32 != 0 && kGroup == 16) scale[cols / 16] = 0.0f, offset[cols / 16] = 0.0f;
      }
      for (int m = 0; m < kM; ++m) {
        const uint64_t x = m * a.x_stride + k;
        dot_int<kGroup, Codec::kOffset>(sum[m], q, scale, offset, a.q + x, a.scale + x / 32, a.sum + x / 16,
                                        static_cast<int>((cols + 31) / 32));
      }
    }
    for (int m = 0; m < kM; ++m) a.y[m * a.y_stride + n] = total(sum[m]);
  }
}

template <class Codec, UnpackInt kUnpack>
void gemv_int(const apr_cpu_gemv* a) {
  if (a->m == 1) return gemv_int_m<Codec, kUnpack, 1>(*a);
  if (a->m == 2) return gemv_int_m<Codec, kUnpack, 2>(*a);
  if (a->m == 3) return gemv_int_m<Codec, kUnpack, 3>(*a);
  gemv_int_m<Codec, kUnpack, 4>(*a);
}

template <class Codec, UnpackFloat kUnpack, int kM>
void gemv_float_m(const apr_cpu_gemv& a) {
  alignas(64) float w[kStep<Codec>];
  for (uint64_t n = 0; n < a.n; ++n) {
    const uint8_t* row = static_cast<const uint8_t*>(a.w) + n * a.row_bytes;
    Sum sum[kM] = {};
    float tail[kM] = {};
    for (uint64_t k = 0; k < a.k; k += kStep<Codec>) {
      const uint64_t cols = a.k - k < uint64_t{kStep<Codec>} ? a.k - k : uint64_t{kStep<Codec>};
      kUnpack(row, k, cols, w);
      for (int m = 0; m < kM; ++m) {
        const float* x = a.x + m * a.x_stride + k;
        dot_float(sum[m], w, x, static_cast<int>(cols / 4 * 4));
        for (uint64_t i = cols / 4 * 4; i < cols; ++i) tail[m] += w[i] * x[i];
      }
    }
    for (int m = 0; m < kM; ++m) a.y[m * a.y_stride + n] = total(sum[m]) + tail[m];
  }
}

template <class Codec, UnpackFloat kUnpack>
void gemv_float(const apr_cpu_gemv* a) {
  if (a->m == 1) return gemv_float_m<Codec, kUnpack, 1>(*a);
  if (a->m == 2) return gemv_float_m<Codec, kUnpack, 2>(*a);
  if (a->m == 3) return gemv_float_m<Codec, kUnpack, 3>(*a);
  gemv_float_m<Codec, kUnpack, 4>(*a);
}

// The definition's quantiser, with all that it calls compiled for this instruction set. Contraction is off:
// the same bytes.
template <class Definition>
__attribute__((flatten)) void quantize_block(const float* x, const float* weight, uint8_t* block) {
  Definition::quantize(x, weight, block);
}

// What format.hpp takes from this instruction set.
struct Derived {
  template <class Codec>
  static constexpr UnpackInt kUnpackInt = &unpack_int<Codec>;
  template <class Codec, int kElements>
  static constexpr UnpackFloat kUnpackFloat = &unpack_float<Codec, kElements>;
  template <class Codec, UnpackInt kUnpack>
  static constexpr UnpackFloat kUnpackScaled = &unpack_scaled<Codec, kUnpack>;
  template <class Codec, UnpackInt kUnpack>
  static constexpr Gemv kGemvInt = &gemv_int<Codec, kUnpack>;
  template <class Codec, UnpackFloat kUnpack>
  static constexpr Gemv kGemvFloat = &gemv_float<Codec, kUnpack>;
  template <class Definition>
  static constexpr QuantizeBlock kQuantizeBlock = &quantize_block<Definition>;
};
