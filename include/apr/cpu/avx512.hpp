// The primitives of the derived kernels in AVX-512 (F, BW, VL, DQ, VNNI), and small tools for hand-written ones.
#pragma once

#include "apr/codec.h"
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

// Exact dot products of 64 int8 pairs, four columns to a lane. VNNI wants unsigned by signed: |w| by x with w's sign.
// x is never -128, so its negation fits.
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
    const __m512 dots = _mm512_cvtepi32_ps(dot_i8(_mm512_loadu_si512(w + 32 * b), _mm512_loadu_si512(x + 32 * b)));
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
    sum.lanes = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(mask, w + k), _mm512_maskz_loadu_ps(mask, x + k), sum.lanes);
  }
}

#include "apr/cpu/derived.inl"

}  // namespace apr::cpu::avx512
APR_REGION_END
