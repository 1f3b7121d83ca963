// Eight floats: AVX2 with FMA and F16C. Included only by files compiled for them.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace apr::cpu {

struct F32x8 {
  static constexpr int kWidth = 8;
  static constexpr int kBlockRows = 2;  // 2 x 4 accumulators, 4 weights: within 16 registers
  // Attention, as in simd_portable.h. 8 and 12 sums of 16 registers: two FMA ports of latency 4 want 8.
  static constexpr int kScoreRows = 4;
  static constexpr int kOutRows = 3;
  static constexpr int kOutVectors = 4;
  __m256 v;

  static F32x8 zero() { return {_mm256_setzero_ps()}; }
  static F32x8 set(float x) { return {_mm256_set1_ps(x)}; }
  static F32x8 load(const float* p) { return {_mm256_loadu_ps(p)}; }
  void store(float* p) const { _mm256_storeu_ps(p, v); }
  static __m256i mask(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static F32x8 load_n(const float* p, int n) { return {_mm256_maskload_ps(p, mask(n))}; }
  void store_n(float* p, int n) const { _mm256_maskstore_ps(p, mask(n), v); }

  friend F32x8 operator+(F32x8 a, F32x8 b) { return {_mm256_add_ps(a.v, b.v)}; }
  friend F32x8 operator-(F32x8 a, F32x8 b) { return {_mm256_sub_ps(a.v, b.v)}; }
  friend F32x8 operator*(F32x8 a, F32x8 b) { return {_mm256_mul_ps(a.v, b.v)}; }
  friend F32x8 operator/(F32x8 a, F32x8 b) { return {_mm256_div_ps(a.v, b.v)}; }
  static F32x8 fma(F32x8 a, F32x8 b, F32x8 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
  // In a register, where a compiler would load it again for each use.
  static F32x8 keep(F32x8 x) {
    __asm__("" : "+x"(x.v));
    return x;
  }
  // A NaN in b is kept.
  static F32x8 max(F32x8 a, F32x8 b) { return {_mm256_max_ps(a.v, b.v)}; }
  static F32x8 min(F32x8 a, F32x8 b) { return {_mm256_min_ps(a.v, b.v)}; }
  static bool any_above(F32x8 a, F32x8 b) {
    return _mm256_movemask_ps(_mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ)) != 0;
  }
  static F32x8 round(F32x8 x) {
    return {_mm256_round_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  // x * 2^n for an integral n in [-252, 254], in two steps so that each factor is a normal number.
  static F32x8 scale(F32x8 x, F32x8 n) {
    const __m256i i = _mm256_cvtps_epi32(n.v), bias = _mm256_set1_epi32(127);
    const __m256i half = _mm256_srai_epi32(i, 1), rest = _mm256_sub_epi32(i, half);
    const __m256 a = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
    const __m256 b = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
    return {_mm256_mul_ps(_mm256_mul_ps(x.v, a), b)};
  }
  // Lane j of the result is the sum of the lanes of a[j].
  static F32x8 sums(const F32x8* a) {
    const __m256 p = _mm256_hadd_ps(_mm256_hadd_ps(a[0].v, a[1].v), _mm256_hadd_ps(a[2].v, a[3].v));
    const __m256 q = _mm256_hadd_ps(_mm256_hadd_ps(a[4].v, a[5].v), _mm256_hadd_ps(a[6].v, a[7].v));
    return {_mm256_add_ps(_mm256_permute2f128_ps(p, q, 0x20), _mm256_permute2f128_ps(p, q, 0x31))};
  }
  static float sum(F32x8 a) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
  }
  static float largest(F32x8 a) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
  }

  static void transpose(F32x8* a) {
    __m256 b[8], c[8];
    for (int i = 0; i < 4; ++i) {
      b[2 * i] = _mm256_unpacklo_ps(a[2 * i].v, a[2 * i + 1].v);
      b[2 * i + 1] = _mm256_unpackhi_ps(a[2 * i].v, a[2 * i + 1].v);
    }
    for (int i = 0; i < 2; ++i) {
      c[4 * i] = _mm256_shuffle_ps(b[4 * i], b[4 * i + 2], 0x44);
      c[4 * i + 1] = _mm256_shuffle_ps(b[4 * i], b[4 * i + 2], 0xee);
      c[4 * i + 2] = _mm256_shuffle_ps(b[4 * i + 1], b[4 * i + 3], 0x44);
      c[4 * i + 3] = _mm256_shuffle_ps(b[4 * i + 1], b[4 * i + 3], 0xee);
    }
    for (int i = 0; i < 4; ++i) {
      a[i].v = _mm256_permute2f128_ps(c[i], c[4 + i], 0x20);
      a[4 + i].v = _mm256_permute2f128_ps(c[i], c[4 + i], 0x31);
    }
  }
  // The bits of both; has_bits: whether any is set.
  static F32x8 either(F32x8 a, F32x8 b) { return {_mm256_or_ps(a.v, b.v)}; }
  static bool has_bits(F32x8 a) {
    return !_mm256_testz_si256(_mm256_castps_si256(a.v), _mm256_castps_si256(a.v));
  }

  static F32x8 from_half(const uint16_t* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
  }
  void to_half(uint16_t* p) const {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  static uint16_t float_to_half(float x) {
    return _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }

  // Bits of the largest |x| of 32: compared as integers an infinity is above every number, and a NaN above it.
  static uint32_t abs_max_bits(const float* x) {
    __m256i most = _mm256_setzero_si256();
    for (int i = 0; i < 32; i += 8)
      most = _mm256_max_epu32(
          most, _mm256_and_si256(_mm256_castps_si256(_mm256_loadu_ps(x + i)), _mm256_set1_epi32(0x7fffffff)));
    __m128i m = _mm_max_epu32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4e));
    return static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_max_epu32(m, _mm_shuffle_epi32(m, 0xb1))));
  }
  // q = nearest(x * inverse) of 32, and the sums of the first and the last 16.
  static void quantize(const float* x, float inverse, int8_t* q, int32_t sum[2]) {
    for (int half = 0; half < 2; ++half) {
      const __m256 f = _mm256_set1_ps(inverse);
      const __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 16 * half), f));
      const __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 16 * half + 8), f));
      const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
      const __m128i bytes =
          _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(q + 16 * half), bytes);
      sum[half] = byte_sum(bytes);
    }
  }
  // Made unsigned by +128, whose sum is taken off again.
  static int32_t byte_sum(__m128i bytes) {
    const __m128i s = _mm_sad_epu8(_mm_xor_si128(bytes, _mm_set1_epi8(-128)), _mm_setzero_si128());
    return _mm_cvtsi128_si32(s) + _mm_extract_epi16(s, 4) - 16 * 128;
  }

  // Sum of squares, in double.
  static double sum_squares(const float* x, uint64_t n) {
    __m256d a = _mm256_setzero_pd(), b = a;
    uint64_t i = 0;
    for (; i + 8 <= n; i += 8) {
      const __m256d lo = _mm256_cvtps_pd(_mm_loadu_ps(x + i)), hi = _mm256_cvtps_pd(_mm_loadu_ps(x + i + 4));
      a = _mm256_fmadd_pd(lo, lo, a);
      b = _mm256_fmadd_pd(hi, hi, b);
    }
    double s[4];
    _mm256_storeu_pd(s, _mm256_add_pd(a, b));
    for (; i < n; ++i) s[0] += static_cast<double>(x[i]) * x[i];
    return (s[0] + s[1]) + (s[2] + s[3]);
  }
};

}  // namespace apr::cpu
