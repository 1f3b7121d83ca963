// f32 on x86.
#pragma once

#include "apr/cpu/avx2.hpp"
#include "apr/cpu/avx512.hpp"

#if APR_HAS_X86_KERNELS

APR_REGION_AVX2_BEGIN
namespace f32_avx2 {
struct Float {
  static constexpr int kBytes = 4;
  APR_FN static __m256 full(const uint8_t* p) { return _mm256_castsi256_ps(apr::cpu::avx2::load32(p)); }
};
}  // namespace f32_avx2
APR_REGION_END

APR_REGION_AVX512_BEGIN
namespace f32_avx512 {
struct Float {
  static constexpr int kBytes = 4;
  APR_FN static __m512 full(const uint8_t* p) { return _mm512_castsi512_ps(apr::cpu::avx512::load64(p)); }
  APR_FN static __m512 part(const uint8_t* p, __mmask16 mask) { return _mm512_maskz_loadu_ps(mask, p); }
};
}  // namespace f32_avx512
APR_REGION_END

#endif
