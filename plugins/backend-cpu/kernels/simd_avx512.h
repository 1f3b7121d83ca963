// Sixteen floats: AVX-512 F, BW, VL, DQ. Included only by files compiled for them.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace apr::cpu {

struct F32x16 {
  static constexpr int kWidth = 16;
  static constexpr int kBlockRows = 4;  // 4 x 4 accumulators
  // Attention, as in simd_portable.h. 12 and 24 sums of 32 registers.
  static constexpr int kScoreRows = 6;
  static constexpr int kOutRows = 3;
  static constexpr int kOutVectors = 8;
  __m512 v;

  static F32x16 zero() { return {_mm512_setzero_ps()}; }
  static F32x16 set(float x) { return {_mm512_set1_ps(x)}; }
  static F32x16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
  static __mmask16 mask(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
  static F32x16 load_n(const float* p, int n) { return {_mm512_maskz_loadu_ps(mask(n), p)}; }
  void store_n(float* p, int n) const { _mm512_mask_storeu_ps(p, mask(n), v); }

  friend F32x16 operator+(F32x16 a, F32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
  friend F32x16 operator-(F32x16 a, F32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
  friend F32x16 operator*(F32x16 a, F32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
  friend F32x16 operator/(F32x16 a, F32x16 b) { return {_mm512_div_ps(a.v, b.v)}; }
  static F32x16 fma(F32x16 a, F32x16 b, F32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  // In a register, where a compiler would load it again for each use.
  static F32x16 keep(F32x16 x) {
    __asm__("" : "+v"(x.v));
    return x;
  }
  // A NaN in b is kept.
  static F32x16 max(F32x16 a, F32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }
  static F32x16 min(F32x16 a, F32x16 b) { return {_mm512_min_ps(a.v, b.v)}; }
  static bool any_above(F32x16 a, F32x16 b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ) != 0; }
  static F32x16 round(F32x16 x) {
    return {_mm512_roundscale_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  // x * 2^n for an integral n.
  static F32x16 scale(F32x16 x, F32x16 n) { return {_mm512_scalef_ps(x.v, n.v)}; }
  // Lane j of the result is the sum of the lanes of a[j]: four rounds of adding one half of the lanes to the other while
  // two vectors merge into one.
  static F32x16 sums(const F32x16* a) {
    __m512 b[8], c[4];
    for (int i = 0; i < 8; ++i)  // even: vector 2i, odd: vector 2i+1
      b[i] = _mm512_add_ps(_mm512_unpacklo_ps(a[2 * i].v, a[2 * i + 1].v),
                           _mm512_unpackhi_ps(a[2 * i].v, a[2 * i + 1].v));
    for (int i = 0; i < 4; ++i) {  // each 128-bit lane: vectors 4i .. 4i+3
      const __m512d x = _mm512_castps_pd(b[2 * i]), y = _mm512_castps_pd(b[2 * i + 1]);
      c[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)),
                           _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
    }
    const __m512 d =
        _mm512_add_ps(_mm512_shuffle_f32x4(c[0], c[1], 0x88), _mm512_shuffle_f32x4(c[0], c[1], 0xdd));
    const __m512 e =
        _mm512_add_ps(_mm512_shuffle_f32x4(c[2], c[3], 0x88), _mm512_shuffle_f32x4(c[2], c[3], 0xdd));
    return {_mm512_add_ps(_mm512_shuffle_f32x4(d, e, 0x88), _mm512_shuffle_f32x4(d, e, 0xdd))};
  }
  static float sum(F32x16 a) { return _mm512_reduce_add_ps(a.v); }
  static float largest(F32x16 a) { return _mm512_reduce_max_ps(a.v); }

  static void transpose(F32x16* a) {
    __m512 b[16], c[16];
    for (int i = 0; i < 8; ++i) {
      b[2 * i] = _mm512_unpacklo_ps(a[2 * i].v, a[2 * i + 1].v);
      b[2 * i + 1] = _mm512_unpackhi_ps(a[2 * i].v, a[2 * i + 1].v);
    }
    for (int i = 0; i < 4; ++i) {
      c[4 * i] = _mm512_shuffle_ps(b[4 * i], b[4 * i + 2], 0x44);
      c[4 * i + 1] = _mm512_shuffle_ps(b[4 * i], b[4 * i + 2], 0xee);
      c[4 * i + 2] = _mm512_shuffle_ps(b[4 * i + 1], b[4 * i + 3], 0x44);
      c[4 * i + 3] = _mm512_shuffle_ps(b[4 * i + 1], b[4 * i + 3], 0xee);
    }
    // c[4 i + j], lane l: column 4 l + j of rows 4 i .. 4 i + 3.
    for (int j = 0; j < 4; ++j) {
      const __m512 low0 = _mm512_shuffle_f32x4(c[j], c[4 + j], 0x44),
                   low1 = _mm512_shuffle_f32x4(c[8 + j], c[12 + j], 0x44);
      const __m512 high0 = _mm512_shuffle_f32x4(c[j], c[4 + j], 0xee),
                   high1 = _mm512_shuffle_f32x4(c[8 + j], c[12 + j], 0xee);
      a[j].v = _mm512_shuffle_f32x4(low0, low1, 0x88);
      a[4 + j].v = _mm512_shuffle_f32x4(low0, low1, 0xdd);
      a[8 + j].v = _mm512_shuffle_f32x4(high0, high1, 0x88);
      a[12 + j].v = _mm512_shuffle_f32x4(high0, high1, 0xdd);
    }
  }
  // The bits of both; has_bits: whether any is set.
  static F32x16 either(F32x16 a, F32x16 b) { return {_mm512_or_ps(a.v, b.v)}; }
  static bool has_bits(F32x16 a) {
    return _mm512_test_epi32_mask(_mm512_castps_si512(a.v), _mm512_castps_si512(a.v)) != 0;
  }

  static F32x16 from_half(const uint16_t* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  }
  void to_half(uint16_t* p) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  static uint16_t float_to_half(float x) {
    return static_cast<uint16_t>(
        _mm_cvtsi128_si32(_mm_cvtps_ph(_mm_set_ss(x), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)));
  }

  // Bits of the largest |x| of 32: compared as integers an infinity is above every number, and a NaN above it.
  static uint32_t abs_max_bits(const float* x) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    const __m512i a = _mm512_and_si512(_mm512_castps_si512(_mm512_loadu_ps(x)), magnitude);
    const __m512i b = _mm512_and_si512(_mm512_castps_si512(_mm512_loadu_ps(x + 16)), magnitude);
    return _mm512_reduce_max_epu32(_mm512_max_epu32(a, b));
  }
  // q = nearest(x * inverse) of 32, and the sums of the first and the last 16.
  static void quantize(const float* x, float inverse, int8_t* q, int32_t sum[2]) {
    for (int half = 0; half < 2; ++half) {
      const __m512 scaled = _mm512_mul_ps(_mm512_loadu_ps(x + 16 * half), _mm512_set1_ps(inverse));
      const __m128i bytes = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(scaled));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(q + 16 * half), bytes);
      // Made unsigned by +128, whose sum is taken off again.
      const __m128i s = _mm_sad_epu8(_mm_xor_si128(bytes, _mm_set1_epi8(-128)), _mm_setzero_si128());
      sum[half] = _mm_cvtsi128_si32(s) + _mm_extract_epi16(s, 4) - 16 * 128;
    }
  }

  // Sum of squares, in double.
  static double sum_squares(const float* x, uint64_t n) {
    __m512d a = _mm512_setzero_pd(), b = a;
    uint64_t i = 0;
    for (; i + 16 <= n; i += 16) {
      const __m512d lo = _mm512_cvtps_pd(_mm256_loadu_ps(x + i)),
                    hi = _mm512_cvtps_pd(_mm256_loadu_ps(x + i + 8));
      a = _mm512_fmadd_pd(lo, lo, a);
      b = _mm512_fmadd_pd(hi, hi, b);
    }
    double s = _mm512_reduce_add_pd(_mm512_add_pd(a, b));
    for (; i < n; ++i) s += static_cast<double>(x[i]) * x[i];
    return s;
  }
};

}  // namespace apr::cpu
