// q2_k and q3_k on x86: the integers by vectors; the derived GEMV multiplies them.
#pragma once

#include "apr/cpu/avx2.hpp"

#if APR_HAS_X86_KERNELS

APR_REGION_AVX2_BEGIN
namespace low_k_avx2 {

using namespace apr::cpu::avx2;

// d * v for sixteen int8 v.
APR_FN void store_scales(float* to, __m256 d, __m128i v) {
  _mm256_storeu_ps(to, _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(v))));
  _mm256_storeu_ps(to + 8, _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(v, 8)))));
}

static void unpack_q2k(const void* row, uint64_t k0, uint64_t cols, int8_t* q, float* scale, float* offset) {
  const uint8_t* block = static_cast<const uint8_t*>(row) + k0 / 256 * 84;
  for (uint64_t k = 0; k < cols; k += 256, block += 84) {
    for (int h = 0; h < 2; ++h) {
      __m256i bytes = load32(block + 16 + 32 * h);
      for (int r = 0; r < 4; ++r, bytes = _mm256_srli_epi16(bytes, 2))
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(q + k + 128 * h + 32 * r),
                            _mm256_and_si256(bytes, _mm256_set1_epi8(3)));
    }
    const __m128i packed = load16(block), nibble = _mm_set1_epi8(15);
    store_scales(scale + k / 16, _mm256_set1_ps(half_at(block + 80)), _mm_and_si128(packed, nibble));
    // The offset is -(dmin * min), so that a min of zero gives -0 or 0 by dmin's sign as the codec's does.
    const __m256 minus_dmin = _mm256_set1_ps(-half_at(block + 82));
    store_scales(offset + k / 16, minus_dmin, _mm_and_si128(_mm_srli_epi16(packed, 4), nibble));
  }
}

static void unpack_q3k(const void* row, uint64_t k0, uint64_t cols, int8_t* q, float* scale, float* offset) {
  const uint8_t* block = static_cast<const uint8_t*>(row) + k0 / 256 * 110;
  for (uint64_t k = 0; k < cols; k += 256, block += 110) {
    __m256i high = load32(block);
    for (int h = 0; h < 2; ++h) {
      __m256i bytes = load32(block + 32 + 32 * h);
      for (int r = 0; r < 4; ++r) {
        const __m256i third = _mm256_and_si256(_mm256_slli_epi16(high, 2), _mm256_set1_epi8(4));
        const __m256i stored = _mm256_or_si256(_mm256_and_si256(bytes, _mm256_set1_epi8(3)), third);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(q + k + 128 * h + 32 * r),
                            _mm256_sub_epi8(stored, _mm256_set1_epi8(4)));
        bytes = _mm256_srli_epi16(bytes, 2);
        high = _mm256_srli_epi16(high, 1);
      }
    }
    // Low nibbles of bytes 0-7, then their high nibbles; above each, a pair of bits of bytes 8-11.
    uint64_t nibbles;
    uint32_t pairs;
    __builtin_memcpy(&nibbles, block + 96, 8);
    __builtin_memcpy(&pairs, block + 104, 4);
    const __m128i low = _mm_and_si128(
        _mm_set_epi64x(static_cast<int64_t>(nibbles >> 4), static_cast<int64_t>(nibbles)), _mm_set1_epi8(15));
    const __m128i up =
        _mm_and_si128(_mm_srlv_epi32(_mm_set1_epi32(static_cast<int>(pairs)), _mm_setr_epi32(0, 2, 4, 6)),
                      _mm_set1_epi8(3));
    const __m128i scales = _mm_sub_epi8(_mm_or_si128(low, _mm_slli_epi16(up, 4)), _mm_set1_epi8(32));
    store_scales(scale + k / 16, _mm256_set1_ps(half_at(block + 108)), scales);
    _mm256_storeu_ps(offset + k / 16, _mm256_setzero_ps());
    _mm256_storeu_ps(offset + k / 16 + 8, _mm256_setzero_ps());
  }
}

}  // namespace low_k_avx2
APR_REGION_END

#endif
