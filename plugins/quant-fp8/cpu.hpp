// The 8-bit floats on x86: codes become halves in integer registers, and F16C makes floats of those,
// subnormals without a penalty. A GEMV multiplies a block's sum with the scale, not each weight.
#pragma once

#include "apr/cpu/avx2.hpp"
#include "apr/cpu/avx512.hpp"

#if APR_HAS_X86_KERNELS

APR_REGION_AVX2_BEGIN
namespace fp8_avx2 {

using namespace apr::cpu::avx2;

// Sixteen codes as halves of value / kFactor.
struct E4M3 {
  static constexpr float kFactor = 256.0f;
  APR_FN static __m256i halves(__m128i codes) {
    // Sign-extended and shifted, a code is sign, sign again, exponent and mantissa in a half's places.
    const __m256i wide =
        _mm256_and_si256(_mm256_slli_epi16(_mm256_cvtepi8_epi16(codes), 7), _mm256_set1_epi16(-0x4001));
    const __m256i nan =
        _mm256_cmpeq_epi16(_mm256_and_si256(wide, _mm256_set1_epi16(0x7fff)), _mm256_set1_epi16(0x3f80));
    return _mm256_or_si256(wide, _mm256_and_si256(nan, _mm256_set1_epi16(0x7fff)));
  }
};
struct E5M2 {
  static constexpr float kFactor = 1.0f;
  APR_FN static __m256i halves(__m128i codes) { return _mm256_slli_epi16(_mm256_cvtepu8_epi16(codes), 8); }
};

APR_FN float scale_of(const uint8_t* block) {
  float scale;
  __builtin_memcpy(&scale, block + 128, 4);
  return scale;
}

template <class Element>
void unpack_float(const void* row, uint64_t k0, uint64_t cols, float* w) {
  const uint8_t* block = static_cast<const uint8_t*>(row) + k0 / 128 * 132;
  const __m256 factor = _mm256_set1_ps(Element::kFactor);
  for (uint64_t k = 0; k < cols; k += 128, block += 132) {
    const __m256 scale = _mm256_set1_ps(scale_of(block));
    for (int i = 0; i < 128; i += 16) {
      const __m256i halves = Element::halves(load16(block + i));
      const __m256 low = _mm256_cvtph_ps(_mm256_castsi256_si128(halves));
      const __m256 high = _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1));
      _mm256_storeu_ps(w + k + i, _mm256_mul_ps(_mm256_mul_ps(low, factor), scale));
      _mm256_storeu_ps(w + k + i + 8, _mm256_mul_ps(_mm256_mul_ps(high, factor), scale));
    }
  }
}

template <class Element>
struct Gemv {
  static constexpr int kColumns = 128;
  static constexpr int kBytes = 132;
  template <int kM>
  APR_FN static void step(const uint8_t* block, uint64_t k, const apr_cpu_gemv& a, __m256* sum) {
    __m256 part[kM][2];  // two chains: one fused multiply-add takes four cycles
    for (int m = 0; m < kM; ++m) part[m][0] = part[m][1] = _mm256_setzero_ps();
    for (int i = 0; i < 128; i += 16) {
      const __m256i halves = Element::halves(load16(block + i));
      const __m256 low = _mm256_cvtph_ps(_mm256_castsi256_si128(halves));
      const __m256 high = _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1));
      for (int m = 0; m < kM; ++m) {
        const float* x = a.x + m * a.x_stride + k + i;
        part[m][0] = _mm256_fmadd_ps(low, _mm256_loadu_ps(x), part[m][0]);
        part[m][1] = _mm256_fmadd_ps(high, _mm256_loadu_ps(x + 8), part[m][1]);
      }
    }
    const __m256 scale = _mm256_set1_ps(scale_of(block)), factor = _mm256_set1_ps(Element::kFactor);
    for (int m = 0; m < kM; ++m)
      sum[m] = _mm256_fmadd_ps(_mm256_mul_ps(_mm256_add_ps(part[m][0], part[m][1]), factor), scale, sum[m]);
  }
  template <int kM>
  APR_FN static void last(const uint8_t*, uint64_t, const apr_cpu_gemv&, __m256*) {}  // rows are whole blocks
};

}  // namespace fp8_avx2
APR_REGION_END

APR_REGION_AVX512_BEGIN
namespace fp8_avx512 {

using namespace apr::cpu::avx512;

// 32 codes as halves of value / kFactor.
struct E4M3 {
  static constexpr float kFactor = 256.0f;
  APR_FN static __m512i halves(__m256i codes) {
    const __m512i wide =
        _mm512_and_si512(_mm512_slli_epi16(_mm512_cvtepi8_epi16(codes), 7), _mm512_set1_epi16(-0x4001));
    const __mmask32 nan =
        _mm512_cmpeq_epi16_mask(_mm512_and_si512(wide, _mm512_set1_epi16(0x7fff)), _mm512_set1_epi16(0x3f80));
    return _mm512_mask_mov_epi16(wide, nan, _mm512_set1_epi16(0x7fff));
  }
};
struct E5M2 {
  static constexpr float kFactor = 1.0f;
  APR_FN static __m512i halves(__m256i codes) { return _mm512_slli_epi16(_mm512_cvtepu8_epi16(codes), 8); }
};

APR_FN __m512 scale_of(const uint8_t* block) {
  float scale;
  __builtin_memcpy(&scale, block + 128, 4);
  return _mm512_set1_ps(scale);
}

template <class Element>
void unpack_float(const void* row, uint64_t k0, uint64_t cols, float* w) {
  const uint8_t* block = static_cast<const uint8_t*>(row) + k0 / 128 * 132;
  const __m512 factor = _mm512_set1_ps(Element::kFactor);
  for (uint64_t k = 0; k < cols; k += 128, block += 132) {
    const __m512 scale = scale_of(block);
    for (int i = 0; i < 128; i += 32) {
      const __m512i halves = Element::halves(load32(block + i));
      const __m512 low = _mm512_cvtph_ps(_mm512_castsi512_si256(halves));
      const __m512 high = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1));
      _mm512_storeu_ps(w + k + i, _mm512_mul_ps(_mm512_mul_ps(low, factor), scale));
      _mm512_storeu_ps(w + k + i + 16, _mm512_mul_ps(_mm512_mul_ps(high, factor), scale));
    }
  }
}

template <class Element>
struct Gemv {
  static constexpr int kColumns = 128;
  static constexpr int kBytes = 132;
  template <int kM>
  APR_FN static void step(const uint8_t* block, uint64_t k, const apr_cpu_gemv& a, __m512* sum) {
    __m512 part[kM][2];
    for (int m = 0; m < kM; ++m) part[m][0] = part[m][1] = _mm512_setzero_ps();
    for (int i = 0; i < 128; i += 32) {
      const __m512i halves = Element::halves(load32(block + i));
      const __m512 low = _mm512_cvtph_ps(_mm512_castsi512_si256(halves));
      const __m512 high = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1));
      for (int m = 0; m < kM; ++m) {
        const float* x = a.x + m * a.x_stride + k + i;
        part[m][0] = _mm512_fmadd_ps(low, _mm512_loadu_ps(x), part[m][0]);
        part[m][1] = _mm512_fmadd_ps(high, _mm512_loadu_ps(x + 16), part[m][1]);
      }
    }
    const __m512 scale = scale_of(block), factor = _mm512_set1_ps(Element::kFactor);
    for (int m = 0; m < kM; ++m)
      sum[m] = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_add_ps(part[m][0], part[m][1]), factor), scale, sum[m]);
  }
  template <int kM>
  APR_FN static void last(const uint8_t*, uint64_t, const apr_cpu_gemv&, __m512*) {}  // rows are whole blocks
};

}  // namespace fp8_avx512
APR_REGION_END

#endif
