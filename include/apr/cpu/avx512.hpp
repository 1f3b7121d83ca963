// The primitives of the derived kernels in AVX-512 (F, BW, VL, DQ, VNNI), and small tools for hand-written
// ones.
#pragma once

#include "apr/codec.h"
#include "apr/cpu/lanes.hpp"
#include "apr/cpu/target.hpp"
#include "apr/quant.h"

APR_REGION_AVX512_BEGIN
namespace apr::cpu::avx512 {

struct Sum {
  __m512 lanes = {};
};

APR_FN float hsum(__m512 v) {
  const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

APR_FN float total(const Sum& sum) { return hsum(sum.lanes); }

// Exact dot products of 64 int8 pairs, four columns to a lane. VNNI wants unsigned by signed: |w| by x with
// w's sign. x is never -128, so its negation fits.
APR_FN __m512i dot_i8(__m512i w, __m512i x) {
  const __m512i signed_x = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(w), _mm512_setzero_si512(), x);
  return _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_abs_epi8(w), signed_x);
}

// lane i of the result is v[i / kRepeat]: v has 16 / kRepeat floats.
template <int kRepeat>
APR_FN __m512 spread(const float* v) {
  if constexpr (kRepeat == 2) {
    return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7),
                                 _mm512_castps256_ps512(_mm256_loadu_ps(v)));
  } else if constexpr (kRepeat == 4) {
    return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3),
                                 _mm512_castps128_ps512(_mm_loadu_ps(v)));
  } else {
    static_assert(kRepeat == 8);
    const __m128 two = _mm_castsi128_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(v)));
    return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1),
                                 _mm512_castps128_ps512(two));
  }
}

template <int kGroup, bool kOffset>
APR_FN void dot_int(Sum& sum, const int8_t* w, const float* scale, const float* offset, const int8_t* x,
                    const float* xscale, const float* xsum, int blocks) {
  int b = 0;
  for (; b + 2 <= blocks; b += 2) {
    const __m512 dots =
        _mm512_cvtepi32_ps(dot_i8(_mm512_loadu_si512(w + 32 * b), _mm512_loadu_si512(x + 32 * b)));
    __m512 s;
    if constexpr (kGroup == 16) {
      s = spread<4>(scale + 2 * b);
    } else {
      s = spread<8>(scale + b);
    }
    sum.lanes = _mm512_fmadd_ps(dots, _mm512_mul_ps(s, spread<8>(xscale + b)), sum.lanes);
  }
  if (b < blocks) {
    const __m256i wv = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + 32 * b));
    const __m256i xv = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + 32 * b));
    const __m512 dots = _mm512_cvtepi32_ps(dot_i8(_mm512_zextsi256_si512(wv), _mm512_zextsi256_si512(xv)));
    const float s1 = kGroup == 16 ? scale[2 * b + 1] : scale[b];
    const __m256 s = _mm256_set_m128(_mm_set1_ps(s1), _mm_set1_ps(kGroup == 16 ? scale[2 * b] : scale[b]));
    const __m256 f = _mm256_mul_ps(s, _mm256_set1_ps(xscale[b]));
    // The upper dots are zero, but an infinite scale must not meet them.
    sum.lanes = _mm512_fmadd_ps(dots, _mm512_zextps256_ps512(f), sum.lanes);
  }
  if constexpr (kOffset) {
    int g = 0;
    for (; g + 16 <= 2 * blocks; g += 16) {
      __m512 o;
      if constexpr (kGroup == 16) {
        o = _mm512_loadu_ps(offset + g);
      } else {
        o = spread<2>(offset + g / 2);
      }
      sum.lanes = _mm512_fmadd_ps(o, _mm512_loadu_ps(xsum + g), sum.lanes);
    }
    for (; g < 2 * blocks; ++g) {
      const float o = kGroup == 16 ? offset[g] : offset[g / 2];
      sum.lanes = _mm512_add_ps(sum.lanes, _mm512_zextps128_ps512(_mm_set_ss(o * xsum[g])));
    }
  }
}

APR_FN void dot_float(Sum& sum, const float* w, const float* x, int columns) {
  int k = 0;
  __m512 odd = _mm512_setzero_ps();  // a second chain: one fused multiply-add takes four cycles
  for (; k + 32 <= columns; k += 32) {
    sum.lanes = _mm512_fmadd_ps(_mm512_loadu_ps(w + k), _mm512_loadu_ps(x + k), sum.lanes);
    odd = _mm512_fmadd_ps(_mm512_loadu_ps(w + k + 16), _mm512_loadu_ps(x + k + 16), odd);
  }
  sum.lanes = _mm512_add_ps(sum.lanes, odd);
  for (; k < columns; k += 16) {
    const __mmask16 mask = static_cast<__mmask16>(columns - k >= 16 ? 0xffff : (1 << (columns - k)) - 1);
    sum.lanes =
        _mm512_fmadd_ps(_mm512_maskz_loadu_ps(mask, w + k), _mm512_maskz_loadu_ps(mask, x + k), sum.lanes);
  }
}

// ---- tools for hand-written kernels
// ---------------------------------------------------------------------------------------

APR_FN __m128i load16(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
APR_FN __m256i load32(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
APR_FN __m512i load64(const void* p) { return _mm512_loadu_si512(p); }
// The same 32 bytes in both halves: the load does it, no shuffle.
APR_FN __m512i load32_twice(const void* p) { return _mm512_broadcast_i64x4(load32(p)); }
APR_FN __m512i load16_four_times(const void* p) { return _mm512_broadcast_i32x4(load16(p)); }

// One half at p, in all lanes.
APR_FN __m512 load_half(const uint8_t* p) {
  uint16_t h;
  __builtin_memcpy(&h, p, 2);
  return _mm512_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(h)));
}

// Four dot products of 64 columns each (four columns to a lane, each of at most 15 bits and in pairs of at
// most 16) to one vector of 16 sums of 16 columns, in "quarter order": lane 4 L + i holds columns 64 i + 16 L
// .. + 16. Packing to 16 bits and adding pairs by vpmaddwd halves the lanes in two operations; shuffles and
// additions would take three, twice. pair_factor: what the last step multiplies the two 8-column sums of each
// lane with (int16).
APR_FN __m512i quarter_sums(__m512i z0, __m512i z1, __m512i z2, __m512i z3, __m512i pair_factor) {
  const __m512i ones = _mm512_set1_epi16(1);
  const __m512i a = _mm512_madd_epi16(_mm512_packs_epi32(z0, z1), ones);
  const __m512i b = _mm512_madd_epi16(_mm512_packs_epi32(z2, z3), ones);
  return _mm512_madd_epi16(_mm512_packs_epi32(a, b), pair_factor);
}
// Eight values, one per 32 columns, to quarter order.
APR_FN __m512 to_quarter_order(__m256 v) {
  return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6, 1, 3, 5, 7, 1, 3, 5, 7),
                               _mm512_castps256_ps512(v));
}
// Eight values, one per 32 columns, to one per 16.
APR_FN __m512 repeat_pairs(__m256 v) {
  return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7),
                               _mm512_castps256_ps512(v));
}

// Every row of a GEMV, one at a time: Kernel::step<kM>(block, k, args, sums) adds the columns from k,
// Kernel::kColumns at a time and what is left over at the row's end by Kernel::last. The hardware's own
// prefetcher stops at each 4 KiB page, so a page ahead is asked for by hand: 10.3 GB/s instead of 6.5 for
// q4_k from memory on one core of a Xeon (model 207).
template <class Kernel, int kM>
APR_FN void gemv_rows(const apr_cpu_gemv& a) {
  constexpr uint64_t kAhead = 4096;
  for (uint64_t n = 0; n < a.n; ++n) {
    const uint8_t* block = static_cast<const uint8_t*>(a.w) + n * a.row_bytes;
    __m512 sum[kM];
    for (int m = 0; m < kM; ++m) sum[m] = _mm512_setzero_ps();
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

// GEMV and unpacking for formats of single elements. Load::kBytes: of one element; Load::full(p): sixteen of
// them; Load::part(p, mask): those of the mask, zeros elsewhere, nothing read beyond.
template <class Load, int kM>
APR_FN void element_rows(const apr_cpu_gemv& a) {
  constexpr int kChains = kM == 1 ? 4 : 2;  // a fused multiply-add takes four cycles, and two start in each
  constexpr uint64_t kAhead = 4096;
  for (uint64_t n = 0; n < a.n; ++n) {
    const uint8_t* row = static_cast<const uint8_t*>(a.w) + n * a.row_bytes;
    __m512 sum[kM][kChains];
    for (int m = 0; m < kM; ++m)
      for (int c = 0; c < kChains; ++c) sum[m][c] = _mm512_setzero_ps();
    uint64_t k = 0;
    for (; k + 16 * kChains <= a.k; k += 16 * kChains) {
      const uint8_t* p = row + k * Load::kBytes;
      for (int i = 0; i < 16 * kChains * Load::kBytes; i += 64) _mm_prefetch(p + kAhead + i, _MM_HINT_T0);
      for (int c = 0; c < kChains; ++c) {
        const __m512 w = Load::full(p + 16 * c * Load::kBytes);
        for (int m = 0; m < kM; ++m)
          sum[m][c] = _mm512_fmadd_ps(w, _mm512_loadu_ps(a.x + m * a.x_stride + k + 16 * c), sum[m][c]);
      }
    }
    for (; k < a.k; k += 16) {
      const __mmask16 mask = static_cast<__mmask16>(a.k - k >= 16 ? 0xffff : (1u << (a.k - k)) - 1);
      const __m512 w = Load::part(row + k * Load::kBytes, mask);
      for (int m = 0; m < kM; ++m)
        sum[m][0] = _mm512_fmadd_ps(w, _mm512_maskz_loadu_ps(mask, a.x + m * a.x_stride + k), sum[m][0]);
    }
    for (int m = 0; m < kM; ++m) {
      __m512 all = sum[m][0];
      for (int c = 1; c < kChains; ++c) all = _mm512_add_ps(all, sum[m][c]);
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
  for (; k + 16 <= cols; k += 16) _mm512_storeu_ps(w + k, Load::full(p + k * Load::kBytes));
  if (k < cols) {
    const __mmask16 mask = static_cast<__mmask16>((1u << (cols - k)) - 1);
    _mm512_mask_storeu_ps(w + k, mask, Load::part(p + k * Load::kBytes, mask));
  }
}

// q * scale + offset per group of columns, the bits of chunk_value. columns is a multiple of 16.
template <int kGroup, bool kOffset>
APR_FN void scale_to_float(const int8_t* q, const float* scale, const float* offset, int columns, float* w) {
  for (int k = 0; k < columns; k += 16) {
    const __m512 v =
        _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(q + k))));
    __m512 value = _mm512_mul_ps(_mm512_set1_ps(scale[k / kGroup]), v);
    if constexpr (kOffset) value = _mm512_add_ps(value, _mm512_set1_ps(offset[k / kGroup]));
    _mm512_storeu_ps(w + k, value);
  }
}

// ---- primitives of lanes.inl: a row of W is a lane
// ---------------------------------------------------------------------------------------

struct RowSums {
  __m512 v = {};
};

APR_FN void transpose_words(const uint8_t* const* row, uint64_t offset, uint32_t (*word)[kTileRows]) {
  __m512i z[4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    // Rows j, j + 4, j + 8, j + 12, one per 128-bit lane: put there by loads, so that only the words within a lane have to
    // be shuffled.
    z[j] = _mm512_castsi128_si512(load16(row[j] + offset));
    z[j] = _mm512_mask_broadcast_i32x4(z[j], 0x00f0, load16(row[j + 4] + offset));
    z[j] = _mm512_mask_broadcast_i32x4(z[j], 0x0f00, load16(row[j + 8] + offset));
    z[j] = _mm512_mask_broadcast_i32x4(z[j], 0xf000, load16(row[j + 12] + offset));
  }
  const __m512i a = _mm512_unpacklo_epi32(z[0], z[1]), b = _mm512_unpacklo_epi32(z[2], z[3]);
  const __m512i c = _mm512_unpackhi_epi32(z[0], z[1]), d = _mm512_unpackhi_epi32(z[2], z[3]);
  _mm512_store_si512(word[0], _mm512_unpacklo_epi64(a, b));
  _mm512_store_si512(word[1], _mm512_unpackhi_epi64(a, b));
  _mm512_store_si512(word[2], _mm512_unpacklo_epi64(c, d));
  _mm512_store_si512(word[3], _mm512_unpackhi_epi64(c, d));
}
APR_FN void store_quads(const uint32_t (*word)[kTileRows], uint64_t rows, int8_t* q, uint64_t q_stride) {
  __m512i z[4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) z[j] = _mm512_load_si512(word[j]);
  const __m512i a = _mm512_unpacklo_epi32(z[0], z[1]), b = _mm512_unpacklo_epi32(z[2], z[3]);
  const __m512i c = _mm512_unpackhi_epi32(z[0], z[1]), d = _mm512_unpackhi_epi32(z[2], z[3]);
  // Row 4 l + j is 128-bit lane l of quads[j].
  const __m512i quads[4] = {_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b),
                            _mm512_unpacklo_epi64(c, d), _mm512_unpackhi_epi64(c, d)};
  alignas(64) __m128i row[kTileRows];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    row[j] = _mm512_castsi512_si128(quads[j]);
    row[4 + j] = _mm512_extracti32x4_epi32(quads[j], 1);
    row[8 + j] = _mm512_extracti32x4_epi32(quads[j], 2);
    row[12 + j] = _mm512_extracti32x4_epi32(quads[j], 3);
  }
  for (uint64_t i = 0; i < rows; ++i) _mm_storeu_si128(reinterpret_cast<__m128i*>(q + i * q_stride), row[i]);
}
APR_FN void look_up_words(const U4& table, uint32_t* word) {
  _mm512_store_si512(word, _mm512_shuffle_epi8(load16_four_times(&table), _mm512_load_si512(word)));
}

// Dot products of 4 kQuads columns of every row with kM rows of activations. VNNI wants unsigned by signed: 128 is added
// to every weight, and 128 times the activations' sum, which is the same for all rows, taken off again.
template <int kQuads, int kM>
APR_FN void dot_rows(const uint32_t (*q)[kTileRows], const int8_t* x, uint64_t x_stride, RowSums (&dot)[kM]) {
  const __m512i bias = _mm512_set1_epi8(-128);
  __m512i w[kQuads];
#pragma GCC unroll 8
  for (int i = 0; i < kQuads; ++i) w[i] = _mm512_xor_si512(_mm512_load_si512(q[i]), bias);
  for (int m = 0; m < kM; ++m) {
    __m512i sum = _mm512_setzero_si512(), of_bias = sum;
#pragma GCC unroll 8
    for (int i = 0; i < kQuads; ++i) {
      int32_t quad;
      __builtin_memcpy(&quad, x + m * x_stride + 4 * i, 4);
      const __m512i quads = _mm512_set1_epi32(quad);
      sum = _mm512_dpbusd_epi32(sum, w[i], quads);
      of_bias = _mm512_dpbusd_epi32(of_bias, bias, quads);
    }
    dot[m].v = _mm512_cvtepi32_ps(_mm512_sub_epi32(sum, of_bias));
  }
}

APR_FN void add_scaled(RowSums& sum, const RowSums& v, const float* scale, float factor) {
  sum.v = _mm512_fmadd_ps(v.v, _mm512_mul_ps(_mm512_load_ps(scale), _mm512_set1_ps(factor)), sum.v);
}
APR_FN void add_product(RowSums& sum, const float* v, float factor) {
  sum.v = _mm512_fmadd_ps(_mm512_load_ps(v), _mm512_set1_ps(factor), sum.v);
}
APR_FN void add_affine(RowSums& sum, const RowSums& v, const float* scale, float factor, const float* offset,
                       float total) {
  const __m512 product = _mm512_mul_ps(_mm512_load_ps(scale), _mm512_mul_ps(v.v, _mm512_set1_ps(factor)));
  const __m512 shift = _mm512_mul_ps(_mm512_load_ps(offset), _mm512_set1_ps(total));
  sum.v = _mm512_add_ps(sum.v, _mm512_add_ps(product, shift));
}
APR_FN void store_rows(const RowSums& sum, uint64_t rows, float* y) {
  _mm512_mask_storeu_ps(y, static_cast<__mmask16>((1u << rows) - 1), sum.v);
}

#include "apr/cpu/derived.inl"
#include "apr/cpu/lanes.inl"

}  // namespace apr::cpu::avx512
APR_REGION_END
