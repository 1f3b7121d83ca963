// iq4_nl, iq4_xs and mxfp4 on x86: a byte shuffle is the table; the derived GEMV multiplies what it gives.
#pragma once

#include "apr/cpu/avx2.hpp"
#include "iq4_nl.h"
#include "iq4_xs.h"
#include "mxfp4.h"

#if APR_HAS_X86_KERNELS

APR_REGION_AVX2_BEGIN
namespace table4_avx2 {

using namespace apr::cpu::avx2;

// 32 columns: the low nibbles of 16 bytes, then the high ones, through Codec::table().
template <class Codec>
APR_FN void store_values(const uint8_t* nibbles, int8_t* q) {
  const apr::U4 words = Codec::table();
  const __m256i table = _mm256_broadcastsi128_si256(load16(&words));
  const __m128i bytes = load16(nibbles);
  const __m256i index =
      _mm256_and_si256(_mm256_setr_m128i(bytes, _mm_srli_epi16(bytes, 4)), _mm256_set1_epi8(15));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(q), _mm256_shuffle_epi8(table, index));
}

static void unpack_iq4_nl(const void* row, uint64_t k0, uint64_t cols, int8_t* q, float* scale,
                          float* offset) {
  const uint8_t* block = static_cast<const uint8_t*>(row) + k0 / 32 * 18;
  for (uint64_t k = 0; k < cols; k += 32, block += 18) {
    store_values<apr::IQ4_NL>(block + 2, q + k);
    scale[k / 32] = half_at(block);
    offset[k / 32] = 0.0f;
  }
}

static void unpack_iq4_xs(const void* row, uint64_t k0, uint64_t cols, int8_t* q, float* scale,
                          float* offset) {
  const uint8_t* block = static_cast<const uint8_t*>(row) + k0 / 256 * 136;
  for (uint64_t k = 0; k < cols; k += 256, block += 136) {
    apr::U2 head;
    __builtin_memcpy(&head, block, 8);
    const float d = half_at(block);
    for (int c = 0; c < 8; ++c) {
      store_values<apr::IQ4_XS>(block + 8 + 16 * c, q + k + 32 * c);
      scale[k / 32 + c] = d * static_cast<float>(apr::IQ4_XS::scale(head, c));
      offset[k / 32 + c] = 0.0f;
    }
  }
}

static void unpack_mxfp4(const void* row, uint64_t k0, uint64_t cols, int8_t* q, float* scale,
                         float* offset) {
  const uint8_t* block = static_cast<const uint8_t*>(row) + k0 / 32 * 17;
  for (uint64_t k = 0; k < cols; k += 32, block += 17) {
    store_values<apr::MXFP4>(block + 1, q + k);
    scale[k / 32] = apr::MXFP4::scale_of(block[0]);
    offset[k / 32] = 0.0f;
  }
}

}  // namespace table4_avx2
APR_REGION_END

#endif
