// What the fast kernels of q4_k and q5_k share: a block's first 16 bytes are d, dmin and eight packed 6-bit
// scales and mins, and a column's value is (d * scale) * q - (dmin * min). See the codecs for the packing.
#pragma once

#include "apr/cpu/avx2.hpp"
#include "apr/cpu/avx512.hpp"

#if APR_HAS_X86_KERNELS

APR_REGION_AVX2_BEGIN
namespace apr::cpu::avx2 {

// A block's first 16 bytes to its eight scales (bytes 0-7) and eight mins (8-15).
APR_FN __m128i k_scales(__m128i head) {
  const __m128i six = _mm_setr_epi32(0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f);
  const __m128i two = _mm_setr_epi32(0, 0x30303030, 0, 0x30303030);
  const __m128i lower =
      _mm_srlv_epi32(_mm_shuffle_epi32(head, _MM_SHUFFLE(3, 2, 3, 1)), _mm_setr_epi32(0, 0, 0, 4));
  const __m128i upper = _mm_srli_epi32(_mm_shuffle_epi32(head, _MM_SHUFFLE(2, 2, 1, 1)), 2);
  return _mm_or_si128(_mm_and_si128(lower, six), _mm_and_si128(upper, two));
}

// d * scale and -(dmin * min) of the eight sub-blocks.
struct KFactors {
  __m256 scale, offset;
};
APR_FN KFactors k_factors(const uint8_t* block) {
  const __m128i head = load16(block), bytes = k_scales(head);
  const __m128 halves = _mm_cvtph_ps(head);
  return {_mm256_mul_ps(_mm256_broadcastss_ps(halves), _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes))),
          _mm256_xor_ps(_mm256_set1_ps(-0.0f),
                        _mm256_mul_ps(_mm256_broadcastss_ps(_mm_movehdup_ps(halves)),
                                      _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8)))))};
}

// What unpack_int reports for a block.
APR_FN void store_k_factors(const uint8_t* block, float* scale, float* offset) {
  const KFactors factors = k_factors(block);
  _mm256_storeu_ps(scale, factors.scale);
  _mm256_storeu_ps(offset, factors.offset);
}

}  // namespace apr::cpu::avx2
APR_REGION_END

APR_REGION_AVX512_BEGIN
namespace apr::cpu::avx512 {

using avx2::k_scales;
using avx2::store_k_factors;

// The dot product of a block of 256 columns with kM rows of activations, from z[i] = the block's integers of
// columns 64 i .. 64 i + 63, in natural order, at most 31 (so that 8 columns' sum fits in 16 bits: see
// quarter_sums).
template <int kM>
APR_FN void k_step(const uint8_t* block, const __m512i z[4], uint64_t k, const apr_cpu_gemv& a, __m512* sum) {
  const __m128i head = load16(block);
  const __m512i bytes = _mm512_broadcast_i32x4(k_scales(head));
  // Scales as int16 pairs in quarter order, mins as int32 per 16 columns in natural order.
  const __m512i scale = _mm512_shuffle_epi8(
      bytes, _mm512_set_epi8(-1, 7, -1, 7, -1, 5, -1, 5, -1, 3, -1, 3, -1, 1, -1, 1, -1, 7, -1, 7, -1, 5, -1,
                             5, -1, 3, -1, 3, -1, 1, -1, 1, -1, 6, -1, 6, -1, 4, -1, 4, -1, 2, -1, 2, -1, 0,
                             -1, 0, -1, 6, -1, 6, -1, 4, -1, 4, -1, 2, -1, 2, -1, 0, -1, 0));
  const __m512i min = _mm512_shuffle_epi8(
      bytes,
      _mm512_set_epi8(-1, -1, -1, 15, -1, -1, -1, 15, -1, -1, -1, 14, -1, -1, -1, 14, -1, -1, -1, 13, -1, -1,
                      -1, 13, -1, -1, -1, 12, -1, -1, -1, 12, -1, -1, -1, 11, -1, -1, -1, 11, -1, -1, -1, 10,
                      -1, -1, -1, 10, -1, -1, -1, 9, -1, -1, -1, 9, -1, -1, -1, 8, -1, -1, -1, 8));
  const __m128 halves = _mm_cvtph_ps(head);
  const __m512 d = _mm512_broadcastss_ps(halves);
  const __m512 mins = _mm512_mul_ps(_mm512_broadcastss_ps(_mm_movehdup_ps(halves)), _mm512_cvtepi32_ps(min));
  for (int m = 0; m < kM; ++m) {
    const uint64_t x = m * a.x_stride + k;
    __m512i dot[4];
    for (int i = 0; i < 4; ++i)
      dot[i] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), z[i], load64(a.q + x + 64 * i));
    const __m512 dots = _mm512_cvtepi32_ps(quarter_sums(dot[0], dot[1], dot[2], dot[3], scale));
    const __m512 xscale = to_quarter_order(_mm256_loadu_ps(a.scale + x / 32));
    sum[m] = _mm512_fmadd_ps(dots, _mm512_mul_ps(d, xscale), sum[m]);
    sum[m] = _mm512_fnmadd_ps(mins, _mm512_loadu_ps(a.sum + x / 16), sum[m]);
  }
}

}  // namespace apr::cpu::avx512
APR_REGION_END

#endif
