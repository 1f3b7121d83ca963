// f16 and bf16 on x86: how sixteen or eight elements become floats.
#pragma once

#include "apr/cpu/avx2.hpp"
#include "apr/cpu/avx512.hpp"

#if APR_HAS_X86_KERNELS

APR_REGION_AVX2_BEGIN
namespace f16_avx2 {

using namespace apr::cpu::avx2;

struct Half {
  static constexpr int kBytes = 2;
  APR_FN static __m256 full(const uint8_t* p) { return _mm256_cvtph_ps(load16(p)); }
};
struct Bfloat {
  static constexpr int kBytes = 2;
  APR_FN static __m256 full(const uint8_t* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load16(p)), 16));
  }
};

}  // namespace f16_avx2
APR_REGION_END

APR_REGION_AVX512_BEGIN
namespace f16_avx512 {

using namespace apr::cpu::avx512;

struct Half {
  static constexpr int kBytes = 2;
  APR_FN static __m512 full(const uint8_t* p) { return _mm512_cvtph_ps(load32(p)); }
  APR_FN static __m512 part(const uint8_t* p, __mmask16 mask) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, p));
  }
};
struct Bfloat {
  static constexpr int kBytes = 2;
  APR_FN static __m512 widen(__m256i v) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
  }
  APR_FN static __m512 full(const uint8_t* p) { return widen(load32(p)); }
  APR_FN static __m512 part(const uint8_t* p, __mmask16 mask) {
    return widen(_mm256_maskz_loadu_epi16(mask, p));
  }
};

}  // namespace f16_avx512
APR_REGION_END

#endif
