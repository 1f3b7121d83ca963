// q6_k on x86: in each half h of a block, byte 64 h + l (l < 64) holds the low four bits of columns 128 h + l
// and 128 h + 64 + l; byte 128 + 32 h + l (l < 32) the high two of columns 128 h + l + {0, 32, 64, 96}; 16
// int8 scales from byte 192; d at byte 208.
#pragma once

#include "apr/cpu/avx2.hpp"
#include "apr/cpu/avx512.hpp"

#if APR_HAS_X86_KERNELS

APR_REGION_AVX2_BEGIN
namespace q6k_avx2 {

using namespace apr::cpu::avx2;

// The stored integers (0..63) of columns 128 h + 32 i .. + 31.
APR_FN __m256i quants(const uint8_t* block, __m256i high, int h, int i) {
  __m256i low = load32(block + 64 * h + 32 * (i % 2));
  if (i >= 2) low = _mm256_srli_epi16(low, 4);
  const __m256i pair = _mm256_set1_epi8(0x30);
  const __m256i up = i == 0   ? _mm256_slli_epi16(high, 4)
                     : i == 1 ? _mm256_slli_epi16(high, 2)
                     : i == 2 ? high
                              : _mm256_srli_epi16(high, 2);
  return _mm256_or_si256(_mm256_and_si256(low, _mm256_set1_epi8(15)), _mm256_and_si256(up, pair));
}

APR_FN __m256 load_half(const uint8_t* p) {
  uint16_t h;
  __builtin_memcpy(&h, p, 2);
  return _mm256_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(h)));
}

static void unpack_int(const void* row, uint64_t k0, uint64_t cols, int8_t* q, float* scale, float* offset) {
  const uint8_t* block = static_cast<const uint8_t*>(row) + k0 / 256 * 210;
  for (uint64_t k = 0; k < cols; k += 256, block += 210) {
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      const __m256i high = load32(block + 128 + 32 * h);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(q + k + 128 * h + 32 * i),
                            _mm256_sub_epi8(quants(block, high, h, i), _mm256_set1_epi8(32)));
    }
    const __m128i scales = load16(block + 192);
    const __m256 d = load_half(block + 208);
    _mm256_storeu_ps(scale + k / 16, _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(scales))));
    _mm256_storeu_ps(scale + k / 16 + 8,
                     _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(scales, 8)))));
    _mm256_storeu_ps(offset + k / 16, _mm256_setzero_ps());
    _mm256_storeu_ps(offset + k / 16 + 8, _mm256_setzero_ps());
  }
}

struct Gemv {
  static constexpr int kColumns = 256;
  static constexpr int kBytes = 210;
  template <int kM>
  APR_FN static void step(const uint8_t* block, uint64_t k, const apr_cpu_gemv& a, __m256* sum) {
    const __m256 d = load_half(block + 208);
    const __m128i bytes = load16(block + 192);
    const __m256i scales = _mm256_cvtepi8_epi16(bytes);
    const __m256 first = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
    const __m256 last = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)));
    __m256 part[kM];
    for (int m = 0; m < kM; ++m) {
      // The stored integers are 32 too great: sum of scale * 32 * (sum of x) comes off again.
      const float* xsum = a.sum + (m * a.x_stride + k) / 16;
      const __m256 excess =
          _mm256_fmadd_ps(last, _mm256_loadu_ps(xsum + 8), _mm256_mul_ps(first, _mm256_loadu_ps(xsum)));
      part[m] = _mm256_mul_ps(excess, _mm256_set1_ps(-32.0f));
    }
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      const __m256i high = load32(block + 128 + 32 * h);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const __m256i w = quants(block, high, h, i);
        // Two columns to an int16 lane, times the scale of their 16: lanes 0-7 the first, 8-15 the second.
        const int quad = 2 * h + i / 2;  // the four scales that hold these two
        const __m256i four = _mm256_permutevar8x32_epi32(
            scales, _mm256_set1_epi64x(int64_t{2 * quad + 1} << 32 | int64_t{2 * quad}));
        const short low = i % 2 == 0 ? 0x0100 : 0x0504, up = i % 2 == 0 ? 0x0302 : 0x0706;
        const __m256i pair =
            _mm256_shuffle_epi8(four, _mm256_setr_m128i(_mm_set1_epi16(low), _mm_set1_epi16(up)));
        for (int m = 0; m < kM; ++m) {
          const uint64_t x = m * a.x_stride + k + static_cast<uint64_t>(128 * h + 32 * i);
          const __m256i dots = _mm256_madd_epi16(_mm256_maddubs_epi16(w, load32(a.q + x)), pair);
          part[m] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), _mm256_set1_ps(a.scale[x / 32]), part[m]);
        }
      }
    }
    for (int m = 0; m < kM; ++m) sum[m] = _mm256_fmadd_ps(d, part[m], sum[m]);
  }
  template <int kM>
  APR_FN static void last(const uint8_t*, uint64_t, const apr_cpu_gemv&, __m256*) {}
};

}  // namespace q6k_avx2
APR_REGION_END

APR_REGION_AVX512_BEGIN
namespace q6k_avx512 {

using namespace apr::cpu::avx512;

// The stored integers (0..63) of columns 128 h .. 128 h + 63 (z[0]) and 128 h + 64 .. + 127 (z[1]).
APR_FN void quants(const uint8_t* block, int h, __m512i* z) {
  const __m512i low = load64(block + 64 * h), nibble = _mm512_set1_epi8(15), pair = _mm512_set1_epi8(0x30);
  const __m512i high = load32_twice(block + 128 + 32 * h);
  // Rotations of the 64-bit lanes bring each column's pair to bits 4 and 5; neighbours are masked away: a |
  // (b & c) is 0xf8.
  const __m512i up0 = _mm512_rolv_epi64(high, _mm512_set_epi64(2, 2, 2, 2, 4, 4, 4, 4));
  const __m512i up1 = _mm512_rolv_epi64(high, _mm512_set_epi64(62, 62, 62, 62, 0, 0, 0, 0));
  z[0] = _mm512_ternarylogic_epi64(_mm512_and_si512(low, nibble), up0, pair, 0xf8);
  z[1] = _mm512_ternarylogic_epi64(_mm512_and_si512(_mm512_srli_epi16(low, 4), nibble), up1, pair, 0xf8);
}

static void unpack_int(const void* row, uint64_t k0, uint64_t cols, int8_t* q, float* scale, float* offset) {
  const uint8_t* block = static_cast<const uint8_t*>(row) + k0 / 256 * 210;
  for (uint64_t k = 0; k < cols; k += 256, block += 210) {
    for (int h = 0; h < 2; ++h) {
      __m512i z[2];
      quants(block, h, z);
      for (int i = 0; i < 2; ++i)
        _mm512_storeu_si512(q + k + 128 * h + 64 * i, _mm512_sub_epi8(z[i], _mm512_set1_epi8(32)));
    }
    const __m512 scales = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load16(block + 192)));
    _mm512_storeu_ps(scale + k / 16, _mm512_mul_ps(load_half(block + 208), scales));
    _mm512_storeu_ps(offset + k / 16, _mm512_setzero_ps());
  }
}

struct Gemv {
  static constexpr int kColumns = 256;
  static constexpr int kBytes = 210;
  template <int kM>
  APR_FN static void step(const uint8_t* block, uint64_t k, const apr_cpu_gemv& a, __m512* sum) {
    __m512i z[4];
    quants(block, 0, z);
    quants(block, 1, z + 2);
    const __m512 d = load_half(block + 208);
    // Dot products of four columns pack into int16 (4 * 63 * 127), and vpmaddwd adds two of them times their
    // scale. After packing z[i] with z[i + 1], 128-bit lane L has columns 64 i + 16 L .. + 15 in its first
    // half and 64 (i + 1) + 16 L .. in its second. A scale goes to the upper byte of its int16, which saves
    // extending its sign: 2 * 32004 * 128 * 256 fits in 32 bits, and the factor of 256 comes off with d.
    const __m512i scales = load16_four_times(block + 192);
    const __m512i lane = _mm512_set_epi64(0x0300030003000300, 0x0300030003000300, 0x0200020002000200,
                                          0x0200020002000200, 0x0100010001000100, 0x0100010001000100, 0, 0);
    const __m512i place =
        _mm512_or_si512(lane, _mm512_broadcast_i32x4(_mm_setr_epi8(-128, 0, -128, 0, -128, 0, -128, 0, -128,
                                                                   4, -128, 4, -128, 4, -128, 4)));
    // Adding four to an index of the upper half gives the next pair's: the sign bits of the zeroed bytes
    // stay.
    const __m512i scale01 = _mm512_shuffle_epi8(scales, place);
    const __m512i scale23 = _mm512_shuffle_epi8(scales, _mm512_add_epi8(place, _mm512_set1_epi16(0x0800)));
    const __m512 excess =
        _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load16(block + 192))), _mm512_set1_ps(-32.0f));
    const __m512 d_256 = _mm512_mul_ps(d, _mm512_set1_ps(1.0f / 256));
    const __m512i order01 = _mm512_setr_epi32(0, 0, 2, 2, 0, 0, 2, 2, 1, 1, 3, 3, 1, 1, 3, 3);
    const __m512i order23 = _mm512_setr_epi32(4, 4, 6, 6, 4, 4, 6, 6, 5, 5, 7, 7, 5, 5, 7, 7);
    for (int m = 0; m < kM; ++m) {
      const uint64_t x = m * a.x_stride + k;
      __m512i dot[4];
      for (int i = 0; i < 4; ++i)
        dot[i] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), z[i], load64(a.q + x + 64 * i));
      const __m512 dots01 =
          _mm512_cvtepi32_ps(_mm512_madd_epi16(_mm512_packs_epi32(dot[0], dot[1]), scale01));
      const __m512 dots23 =
          _mm512_cvtepi32_ps(_mm512_madd_epi16(_mm512_packs_epi32(dot[2], dot[3]), scale23));
      const __m512 xscale = _mm512_castps256_ps512(_mm256_loadu_ps(a.scale + x / 32));
      __m512 part = _mm512_mul_ps(dots01, _mm512_permutexvar_ps(order01, xscale));
      part = _mm512_fmadd_ps(dots23, _mm512_permutexvar_ps(order23, xscale), part);
      sum[m] = _mm512_fmadd_ps(d_256, part, sum[m]);
      sum[m] = _mm512_fmadd_ps(_mm512_mul_ps(d, excess), _mm512_loadu_ps(a.sum + x / 16), sum[m]);
    }
  }
  template <int kM>
  APR_FN static void last(const uint8_t*, uint64_t, const apr_cpu_gemv&, __m512*) {}
};

}  // namespace q6k_avx512
APR_REGION_END

#endif
