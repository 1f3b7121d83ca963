// q4_k on x86: a block's nibbles are 128 bytes from byte 16; byte 32 g + i holds columns 64 g + i (low) and
// 64 g + 32 + i (high).
#pragma once

#include "apr/cpu/k_scales.hpp"

#if APR_HAS_X86_KERNELS

APR_REGION_AVX2_BEGIN
namespace q4k_avx2 {

using namespace apr::cpu::avx2;

static void unpack_int(const void* row, uint64_t k0, uint64_t cols, int8_t* q, float* scale, float* offset) {
  const uint8_t* block = static_cast<const uint8_t*>(row) + k0 / 256 * 144;
  const __m256i nibble = _mm256_set1_epi8(15);
  for (uint64_t k = 0; k < cols; k += 256, block += 144) {
    for (int g = 0; g < 4; ++g) {
      const __m256i bytes = load32(block + 16 + 32 * g);
      auto* out = reinterpret_cast<__m256i*>(q + k + 64 * g);
      _mm256_storeu_si256(out, _mm256_and_si256(bytes, nibble));
      _mm256_storeu_si256(out + 1, _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble));
    }
    store_k_factors(block, scale + k / 32, offset + k / 32);
  }
}

struct Gemv {
  static constexpr int kColumns = 256;
  static constexpr int kBytes = 144;
  template <int kM>
  APR_FN static void step(const uint8_t* block, uint64_t k, const apr_cpu_gemv& a, __m256* sum) {
    const KFactors factors = k_factors(block);
    const __m256i nibble = _mm256_set1_epi8(15);
    alignas(32) float factor[kM][8];
    for (int m = 0; m < kM; ++m) {
      const uint64_t x = m * a.x_stride + k;
      _mm256_store_ps(factor[m], _mm256_mul_ps(factors.scale, _mm256_loadu_ps(a.scale + x / 32)));
      sum[m] = add_offsets(sum[m], factors.offset, a.sum + x / 16);
    }
    for (int g = 0; g < 4; ++g) {
      const __m256i bytes = load32(block + 16 + 32 * g);
      const __m256i low = _mm256_and_si256(bytes, nibble),
                    high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble);
      for (int m = 0; m < kM; ++m) {
        const int8_t* x = a.q + m * a.x_stride + k + 64 * g;
        sum[m] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot_u8(low, load32(x))), _mm256_set1_ps(factor[m][2 * g]),
                                 sum[m]);
        sum[m] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot_u8(high, load32(x + 32))),
                                 _mm256_set1_ps(factor[m][2 * g + 1]), sum[m]);
      }
    }
  }
  template <int kM>
  APR_FN static void last(const uint8_t*, uint64_t, const apr_cpu_gemv&, __m256*) {}
};

}  // namespace q4k_avx2
APR_REGION_END

APR_REGION_AVX512_BEGIN
namespace q4k_avx512 {

using namespace apr::cpu::avx512;

// Columns 64 g .. 64 g + 63 in natural order: the same 32 bytes twice, the upper half shifted.
APR_FN __m512i nibbles(const uint8_t* block, int g) {
  const __m512i shift = _mm512_set_epi64(4, 4, 4, 4, 0, 0, 0, 0);
  return _mm512_and_si512(_mm512_srlv_epi64(load32_twice(block + 16 + 32 * g), shift), _mm512_set1_epi8(15));
}

static void unpack_int(const void* row, uint64_t k0, uint64_t cols, int8_t* q, float* scale, float* offset) {
  const uint8_t* block = static_cast<const uint8_t*>(row) + k0 / 256 * 144;
  for (uint64_t k = 0; k < cols; k += 256, block += 144) {
    for (int g = 0; g < 4; ++g) _mm512_storeu_si512(q + k + 64 * g, nibbles(block, g));
    store_k_factors(block, scale + k / 32, offset + k / 32);
  }
}

struct Gemv {
  static constexpr int kColumns = 256;
  static constexpr int kBytes = 144;
  template <int kM>
  APR_FN static void step(const uint8_t* block, uint64_t k, const apr_cpu_gemv& a, __m512* sum) {
    __m512i z[4];
    for (int g = 0; g < 4; ++g) z[g] = nibbles(block, g);
    k_step<kM>(block, z, k, a, sum);
  }
  template <int kM>
  APR_FN static void last(const uint8_t*, uint64_t, const apr_cpu_gemv&, __m512*) {}
};

}  // namespace q4k_avx512
APR_REGION_END

#endif
