// q5_k on x86: nibbles are 128 bytes from byte 48, as in q4_k; the fifth bits of columns 32 s + i are bits s
// of the 32 bytes from byte 16.
#pragma once

#include "apr/cpu/k_scales.hpp"

#if APR_HAS_X86_KERNELS

APR_REGION_AVX2_BEGIN
namespace q5k_avx2 {

using namespace apr::cpu::avx2;

// Columns 32 s .. 32 s + 31, for s = 2 g (low nibbles of `bytes`) and 2 g + 1 (high). `high`: the fifth bits,
// bit 2 g lowest.
APR_FN __m256i low_half(__m256i bytes, __m256i high) {
  const __m256i fifth = _mm256_and_si256(_mm256_slli_epi16(high, 4), _mm256_set1_epi8(16));
  return _mm256_or_si256(_mm256_and_si256(bytes, _mm256_set1_epi8(15)), fifth);
}
APR_FN __m256i high_half(__m256i bytes, __m256i high) {
  const __m256i fifth = _mm256_and_si256(_mm256_slli_epi16(high, 3), _mm256_set1_epi8(16));
  return _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(bytes, 4), _mm256_set1_epi8(15)), fifth);
}

static void unpack_int(const void* row, uint64_t k0, uint64_t cols, int8_t* q, float* scale, float* offset) {
  const uint8_t* block = static_cast<const uint8_t*>(row) + k0 / 256 * 176;
  for (uint64_t k = 0; k < cols; k += 256, block += 176) {
    __m256i high = load32(block + 16);
    for (int g = 0; g < 4; ++g, high = _mm256_srli_epi16(high, 2)) {
      const __m256i bytes = load32(block + 48 + 32 * g);
      auto* out = reinterpret_cast<__m256i*>(q + k + 64 * g);
      _mm256_storeu_si256(out, low_half(bytes, high));
      _mm256_storeu_si256(out + 1, high_half(bytes, high));
    }
    store_k_factors(block, scale + k / 32, offset + k / 32);
  }
}

struct Gemv {
  static constexpr int kColumns = 256;
  static constexpr int kBytes = 176;
  template <int kM>
  APR_FN static void step(const uint8_t* block, uint64_t k, const apr_cpu_gemv& a, __m256* sum) {
    const KFactors factors = k_factors(block);
    alignas(32) float factor[kM][8];
    for (int m = 0; m < kM; ++m) {
      const uint64_t x = m * a.x_stride + k;
      _mm256_store_ps(factor[m], _mm256_mul_ps(factors.scale, _mm256_loadu_ps(a.scale + x / 32)));
      sum[m] = add_offsets(sum[m], factors.offset, a.sum + x / 16);
    }
    __m256i bits = load32(block + 16);
    for (int g = 0; g < 4; ++g, bits = _mm256_srli_epi16(bits, 2)) {
      const __m256i bytes = load32(block + 48 + 32 * g);
      const __m256i low = low_half(bytes, bits), high = high_half(bytes, bits);
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

}  // namespace q5k_avx2
APR_REGION_END

APR_REGION_AVX512_BEGIN
namespace q5k_avx512 {

using namespace apr::cpu::avx512;

// Columns 64 g .. 64 g + 63 in natural order.
APR_FN __m512i quants(const uint8_t* block, __m512i high, int g) {
  const __m512i nibble_shift = _mm512_set_epi64(4, 4, 4, 4, 0, 0, 0, 0);
  const __m512i nibbles = _mm512_and_si512(_mm512_srlv_epi64(load32_twice(block + 48 + 32 * g), nibble_shift),
                                           _mm512_set1_epi8(15));
  // Bit 2 g (lower half) or 2 g + 1 (upper) of each byte to bit 4: a rotation of the 64-bit lane brings it
  // there, and what comes from the neighbouring byte is masked away.
  const int low = (64 + 4 - 2 * g) % 64, up = (64 + 3 - 2 * g) % 64;
  const __m512i rotated = _mm512_rolv_epi64(high, _mm512_set_epi64(up, up, up, up, low, low, low, low));
  return _mm512_ternarylogic_epi64(nibbles, rotated, _mm512_set1_epi8(16), 0xf8);  // a | (b & c)
}

static void unpack_int(const void* row, uint64_t k0, uint64_t cols, int8_t* q, float* scale, float* offset) {
  const uint8_t* block = static_cast<const uint8_t*>(row) + k0 / 256 * 176;
  for (uint64_t k = 0; k < cols; k += 256, block += 176) {
    const __m512i high = load32_twice(block + 16);
#pragma GCC unroll 4
    for (int g = 0; g < 4; ++g) _mm512_storeu_si512(q + k + 64 * g, quants(block, high, g));
    store_k_factors(block, scale + k / 32, offset + k / 32);
  }
}

struct Gemv {
  static constexpr int kColumns = 256;
  static constexpr int kBytes = 176;
  template <int kM>
  APR_FN static void step(const uint8_t* block, uint64_t k, const apr_cpu_gemv& a, __m512* sum) {
    const __m512i high = load32_twice(block + 16);
    __m512i z[4];
#pragma GCC unroll 4
    for (int g = 0; g < 4; ++g) z[g] = quants(block, high, g);
    k_step<kM>(block, z, k, a, sum);
  }
  template <int kM>
  APR_FN static void last(const uint8_t*, uint64_t, const apr_cpu_gemv&, __m512*) {}
};

}  // namespace q5k_avx512
APR_REGION_END

#endif
