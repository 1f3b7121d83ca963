// The primitives of the derived kernels in AVX2 with FMA, and small tools for hand-written ones.
#pragma once

#include "apr/codec.h"
#include "apr/cpu/lanes.hpp"
#include "apr/cpu/target.hpp"
#include "apr/quant.h"

APR_REGION_AVX2_BEGIN
namespace apr::cpu::avx2 {

struct Sum {
  __m256 lanes = {};
};

APR_FN float hsum(__m256 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

APR_FN float total(const Sum& sum) { return hsum(sum.lanes); }

// Exact dot products of 32 unsigned and signed bytes, four columns to a lane. maddubs adds two products in 16
// bits, so w <= 128 and |x| <= 127: 2 * 128 * 127 just fits.
APR_FN __m256i dot_u8(__m256i w, __m256i x) {
  return _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1));
}

// The same for signed weights: |w| by x with w's sign. x is never -128, so its negation fits.
APR_FN __m256i dot_i8(__m256i w, __m256i x) { return dot_u8(_mm256_sign_epi8(w, w), _mm256_sign_epi8(x, w)); }

APR_FN __m256i load32(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
APR_FN __m128i load16(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }

template <int kGroup, bool kOffset>
APR_FN void dot_int(Sum& sum, const int8_t* w, const float* scale, const float* offset, const int8_t* x,
                    const float* xscale, const float* xsum, int blocks) {
  for (int b = 0; b < blocks; ++b) {
    const __m256 dots = _mm256_cvtepi32_ps(dot_i8(load32(w + 32 * b), load32(x + 32 * b)));
    __m256 s;
    if constexpr (kGroup == 16) {
      s = _mm256_set_m128(_mm_set1_ps(scale[2 * b + 1]), _mm_set1_ps(scale[2 * b]));
    } else {
      s = _mm256_set1_ps(scale[b]);
    }
    sum.lanes = _mm256_fmadd_ps(dots, _mm256_mul_ps(s, _mm256_set1_ps(xscale[b])), sum.lanes);
  }
  if constexpr (kOffset) {
    int g = 0;
    for (; g + 8 <= 2 * blocks; g += 8) {
      __m256 o;
      if constexpr (kGroup == 16) {
        o = _mm256_loadu_ps(offset + g);
      } else {
        o = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(offset + g / 2)),
                                     _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
      }
      sum.lanes = _mm256_fmadd_ps(o, _mm256_loadu_ps(xsum + g), sum.lanes);
    }
    for (; g < 2 * blocks; ++g) {
      const float o = kGroup == 16 ? offset[g] : offset[g / 2];
      sum.lanes = _mm256_add_ps(sum.lanes, _mm256_castps128_ps256(_mm_set_ss(o * xsum[g])));
    }
  }
}

APR_FN void dot_float(Sum& sum, const float* w, const float* x, int columns) {
  int k = 0;
  __m256 odd = _mm256_setzero_ps();  // a second chain: one fused multiply-add takes four cycles
  for (; k + 16 <= columns; k += 16) {
    sum.lanes = _mm256_fmadd_ps(_mm256_loadu_ps(w + k), _mm256_loadu_ps(x + k), sum.lanes);
    odd = _mm256_fmadd_ps(_mm256_loadu_ps(w + k + 8), _mm256_loadu_ps(x + k + 8), odd);
  }
  sum.lanes = _mm256_add_ps(sum.lanes, odd);
  for (; k < columns; k += 4) {
    const __m128 p = _mm_mul_ps(_mm_loadu_ps(w + k), _mm_loadu_ps(x + k));
    sum.lanes = _mm256_add_ps(sum.lanes, _mm256_set_m128(_mm_setzero_ps(), p));
  }
}

// ---- tools for hand-written kernels
// ---------------------------------------------------------------------------------------

// sum + v[i] * (xsum[2 i] + xsum[2 i + 1]), i < 8, spread over eight lanes: what offsets of 32 columns
// contribute.
APR_FN __m256 add_offsets(__m256 sum, __m256 v, const float* xsum) {
  const __m256 first = _mm256_permutevar8x32_ps(v, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
  const __m256 last = _mm256_permutevar8x32_ps(v, _mm256_setr_epi32(4, 4, 5, 5, 6, 6, 7, 7));
  sum = _mm256_fmadd_ps(first, _mm256_loadu_ps(xsum), sum);
  return _mm256_fmadd_ps(last, _mm256_loadu_ps(xsum + 8), sum);
}

APR_FN float half_at(const uint8_t* p) {
  uint16_t h;
  __builtin_memcpy(&h, p, 2);
  return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(h)));
}

// Every row of a GEMV, one at a time: Kernel::step<kM>(block, k, args, sums) adds the columns from k,
// Kernel::kColumns at a time and what is left over at the row's end by Kernel::last. The hardware's own
// prefetcher stops at each 4 KiB page.
template <class Kernel, int kM>
APR_FN void gemv_rows(const apr_cpu_gemv& a) {
  constexpr uint64_t kAhead = 4096;
  for (uint64_t n = 0; n < a.n; ++n) {
    const uint8_t* block = static_cast<const uint8_t*>(a.w) + n * a.row_bytes;
    __m256 sum[kM];
    for (int m = 0; m < kM; ++m) sum[m] = _mm256_setzero_ps();
    uint64_t k = 0;
    for (; k + Kernel::kColumns <= a.k; k += Kernel::kColumns, block += Kernel::kBytes) {
      for (int i = 0; i < Kernel::kBytes; i += 64) _mm_prefetch(block + kAhead + i, _MM_HINT_T0);
      Kernel::template step<kM>(block, k, a, sum);
    }
    if (k < a.k) Kernel::template last<kM>(block, k, a, sum);
    for (int m = 0; m < kM; ++m) a.y[m * a.y_stride + n] = hsum(sum[m]);
  }
}
template <class Kernel>
void gemv_by(const apr_cpu_gemv* a) {
  if (a->m == 1) return gemv_rows<Kernel, 1>(*a);
  if (a->m == 2) return gemv_rows<Kernel, 2>(*a);
  if (a->m == 3) return gemv_rows<Kernel, 3>(*a);
  gemv_rows<Kernel, 4>(*a);
}

// GEMV and unpacking for formats of single elements. Load::kBytes: of one element; Load::full(p): eight of
// them.
template <class Load>
APR_FN __m256 load_part(const uint8_t* p, uint64_t n) {
  alignas(32) uint8_t padded[8 * Load::kBytes] = {};
  __builtin_memcpy(padded, p, n * Load::kBytes);
  return Load::full(padded);
}
template <class Load, int kM>
APR_FN void element_rows(const apr_cpu_gemv& a) {
  constexpr int kChains = kM == 1 ? 4 : 2;  // a fused multiply-add takes four cycles, and two start in each
  constexpr uint64_t kAhead = 4096;
  for (uint64_t n = 0; n < a.n; ++n) {
    const uint8_t* row = static_cast<const uint8_t*>(a.w) + n * a.row_bytes;
    __m256 sum[kM][kChains];
    for (int m = 0; m < kM; ++m)
      for (int c = 0; c < kChains; ++c) sum[m][c] = _mm256_setzero_ps();
    uint64_t k = 0;
    for (; k + 8 * kChains <= a.k; k += 8 * kChains) {
      const uint8_t* p = row + k * Load::kBytes;
      for (int i = 0; i < 8 * kChains * Load::kBytes; i += 64) _mm_prefetch(p + kAhead + i, _MM_HINT_T0);
      for (int c = 0; c < kChains; ++c) {
        const __m256 w = Load::full(p + 8 * c * Load::kBytes);
        for (int m = 0; m < kM; ++m)
          sum[m][c] = _mm256_fmadd_ps(w, _mm256_loadu_ps(a.x + m * a.x_stride + k + 8 * c), sum[m][c]);
      }
    }
    for (; k < a.k; k += 8) {
      const uint64_t left = a.k - k < 8 ? a.k - k : 8;
      const __m256 w = load_part<Load>(row + k * Load::kBytes, left);
      for (int m = 0; m < kM; ++m) {
        alignas(32) float x[8] = {};
        __builtin_memcpy(x, a.x + m * a.x_stride + k, left * sizeof(float));
        sum[m][0] = _mm256_fmadd_ps(w, _mm256_load_ps(x), sum[m][0]);
      }
    }
    for (int m = 0; m < kM; ++m) {
      __m256 all = sum[m][0];
      for (int c = 1; c < kChains; ++c) all = _mm256_add_ps(all, sum[m][c]);
      a.y[m * a.y_stride + n] = hsum(all);
    }
  }
}
template <class Load>
void element_gemv(const apr_cpu_gemv* a) {
  if (a->m == 1) return element_rows<Load, 1>(*a);
  if (a->m == 2) return element_rows<Load, 2>(*a);
  if (a->m == 3) return element_rows<Load, 3>(*a);
  element_rows<Load, 4>(*a);
}
template <class Load>
void element_unpack(const void* row, uint64_t k0, uint64_t cols, float* w) {
  const uint8_t* p = static_cast<const uint8_t*>(row) + k0 * Load::kBytes;
  uint64_t k = 0;
  for (; k + 8 <= cols; k += 8) _mm256_storeu_ps(w + k, Load::full(p + k * Load::kBytes));
  if (k < cols) {
    alignas(32) float values[8];
    _mm256_store_ps(values, load_part<Load>(p + k * Load::kBytes, cols - k));
    __builtin_memcpy(w + k, values, (cols - k) * sizeof(float));
  }
}

// q * scale + offset per group of columns, the bits of chunk_value. columns is a multiple of 16.
template <int kGroup, bool kOffset>
APR_FN void scale_to_float(const int8_t* q, const float* scale, const float* offset, int columns, float* w) {
  for (int k = 0; k < columns; k += 8) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(q + k));
    __m256 value =
        _mm256_mul_ps(_mm256_set1_ps(scale[k / kGroup]), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)));
    if constexpr (kOffset) value = _mm256_add_ps(value, _mm256_set1_ps(offset[k / kGroup]));
    _mm256_storeu_ps(w + k, value);
  }
}

// ---- primitives of lanes.inl: a row of W is a lane
// ---------------------------------------------------------------------------------------

struct RowSums {
  __m256 v[2] = {};
};

APR_FN void transpose_words(const uint8_t* const* row, uint64_t offset, uint32_t (*word)[kTileRows]) {
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    __m256i z[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j)  // rows j and j + 4, one per 128-bit lane
      z[j] = _mm256_inserti128_si256(_mm256_castsi128_si256(load16(row[8 * h + j] + offset)),
                                     load16(row[8 * h + j + 4] + offset), 1);
    const __m256i a = _mm256_unpacklo_epi32(z[0], z[1]), b = _mm256_unpacklo_epi32(z[2], z[3]);
    const __m256i c = _mm256_unpackhi_epi32(z[0], z[1]), d = _mm256_unpackhi_epi32(z[2], z[3]);
    const auto store = [&](int w, __m256i v) {
      _mm256_store_si256(reinterpret_cast<__m256i*>(word[w] + 8 * h), v);
    };
    store(0, _mm256_unpacklo_epi64(a, b));
    store(1, _mm256_unpackhi_epi64(a, b));
    store(2, _mm256_unpacklo_epi64(c, d));
    store(3, _mm256_unpackhi_epi64(c, d));
  }
}
APR_FN void store_quads(const uint32_t (*word)[kTileRows], uint64_t rows, int8_t* q, uint64_t q_stride) {
  alignas(32) __m128i row[kTileRows];
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    __m256i z[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) z[j] = load32(word[j] + 8 * h);
    const __m256i a = _mm256_unpacklo_epi32(z[0], z[1]), b = _mm256_unpacklo_epi32(z[2], z[3]);
    const __m256i c = _mm256_unpackhi_epi32(z[0], z[1]), d = _mm256_unpackhi_epi32(z[2], z[3]);
    const __m256i quads[4] = {_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b),
                              _mm256_unpacklo_epi64(c, d), _mm256_unpackhi_epi64(c, d)};
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      row[8 * h + j] = _mm256_castsi256_si128(quads[j]);
      row[8 * h + 4 + j] = _mm256_extracti128_si256(quads[j], 1);
    }
  }
  for (uint64_t i = 0; i < rows; ++i) _mm_storeu_si128(reinterpret_cast<__m128i*>(q + i * q_stride), row[i]);
}
APR_FN void look_up_words(const U4& table, uint32_t* word) {
  const __m256i t = _mm256_broadcastsi128_si256(load16(&table));
  for (int h = 0; h < 2; ++h)
    _mm256_store_si256(reinterpret_cast<__m256i*>(word + 8 * h),
                       _mm256_shuffle_epi8(t, load32(word + 8 * h)));
}

// Dot products of 4 kQuads columns of every row with kM rows of activations.
template <int kQuads, int kM>
APR_FN void dot_rows(const uint32_t (*q)[kTileRows], const int8_t* x, uint64_t x_stride, RowSums (&dot)[kM]) {
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    __m256i sum[kM];
    for (int m = 0; m < kM; ++m) sum[m] = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int i = 0; i < kQuads; ++i) {
      const __m256i w = load32(q[i] + 8 * h);
      const __m256i magnitude = _mm256_sign_epi8(w, w);
      for (int m = 0; m < kM; ++m) {
        int32_t quad;
        __builtin_memcpy(&quad, x + m * x_stride + 4 * i, 4);
        sum[m] = _mm256_add_epi32(sum[m], dot_u8(magnitude, _mm256_sign_epi8(_mm256_set1_epi32(quad), w)));
      }
    }
    for (int m = 0; m < kM; ++m) dot[m].v[h] = _mm256_cvtepi32_ps(sum[m]);
  }
}

APR_FN void add_scaled(RowSums& sum, const RowSums& v, const float* scale, float factor) {
  for (int h = 0; h < 2; ++h)
    sum.v[h] = _mm256_fmadd_ps(v.v[h], _mm256_mul_ps(_mm256_load_ps(scale + 8 * h), _mm256_set1_ps(factor)),
                               sum.v[h]);
}
APR_FN void add_product(RowSums& sum, const float* v, float factor) {
  for (int h = 0; h < 2; ++h)
    sum.v[h] = _mm256_fmadd_ps(_mm256_load_ps(v + 8 * h), _mm256_set1_ps(factor), sum.v[h]);
}
APR_FN void add_affine(RowSums& sum, const RowSums& v, const float* scale, float factor, const float* offset,
                       float total) {
  for (int h = 0; h < 2; ++h) {
    const __m256 product =
        _mm256_mul_ps(_mm256_load_ps(scale + 8 * h), _mm256_mul_ps(v.v[h], _mm256_set1_ps(factor)));
    const __m256 shift = _mm256_mul_ps(_mm256_load_ps(offset + 8 * h), _mm256_set1_ps(total));
    sum.v[h] = _mm256_add_ps(sum.v[h], _mm256_add_ps(product, shift));
  }
}
APR_FN void store_rows(const RowSums& sum, uint64_t rows, float* y) {
  alignas(32) float all[kTileRows];
  for (int h = 0; h < 2; ++h) _mm256_store_ps(all + 8 * h, sum.v[h]);
  __builtin_memcpy(y, all, rows * sizeof(float));
}

#include "apr/cpu/derived.inl"
#include "apr/cpu/lanes.inl"

}  // namespace apr::cpu::avx2
APR_REGION_END
