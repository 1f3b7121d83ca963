// The primitives of the derived kernels in AVX2 with FMA, and small tools for hand-written ones.
#pragma once

#include "apr/codec.h"
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

// Exact dot products of 32 int8 pairs, four columns to a lane. Widened to 16 bits: maddubs would add two products there, and
// 2 * 128 * 127 saturates.
APR_FN __m256i dot_i8(__m256i w, __m256i x) {
  const __m256i w0 = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(w));
  const __m256i w1 = _mm256_cvtepi8_epi16(_mm256_extracti128_si256(w, 1));
  const __m256i x0 = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(x));
  const __m256i x1 = _mm256_cvtepi8_epi16(_mm256_extracti128_si256(x, 1));
  // Two columns to a lane; hadd brings columns 0..15 and 16..31 into lanes {0,1,4,5} and {2,3,6,7}.
  return _mm256_permute4x64_epi64(_mm256_hadd_epi32(_mm256_madd_epi16(w0, x0), _mm256_madd_epi16(w1, x1)), 0xd8);
}

template <int kGroup, bool kOffset>
APR_FN void dot_int(Sum& sum, const int8_t* w, const float* scale, const float* offset, const int8_t* x,
                    const float* xscale, const float* xsum, int blocks) {
  for (int b = 0; b < blocks; ++b) {
    const __m256i wv = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + 32 * b));
    const __m256i xv = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + 32 * b));
    const __m256 dots = _mm256_cvtepi32_ps(dot_i8(wv, xv));
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

#include "apr/cpu/derived.inl"

}  // namespace apr::cpu::avx2
APR_REGION_END
