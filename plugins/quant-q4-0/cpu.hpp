// q4_0, q4_1, q5_0, q5_1 and q8_0 on x86. One description of a block serves all five: what differs is where
// things lie.
#pragma once

#include "apr/cpu/avx2.hpp"
#include "apr/cpu/avx512.hpp"

#if APR_HAS_X86_KERNELS

// A block of 32 columns begins with d (and m); the integers are nibbles (byte i: columns i and 16 + i) or
// bytes.
struct Q4_0Block {
  static constexpr int kBytes = 18;
  static constexpr int kQuants = 2;     // offset of the nibbles or bytes
  static constexpr int kHigh = -1;      // offset of the word of fifth bits, or -1
  static constexpr int kBias = 8;       // what is stored is q + kBias
  static constexpr bool kMin = false;   // m follows d
  static constexpr bool kWide = false;  // bytes, not nibbles
};
struct Q4_1Block {
  static constexpr int kBytes = 20, kQuants = 4, kHigh = -1, kBias = 0;
  static constexpr bool kMin = true, kWide = false;
};
struct Q5_0Block {
  static constexpr int kBytes = 22, kQuants = 6, kHigh = 2, kBias = 16;
  static constexpr bool kMin = false, kWide = false;
};
struct Q5_1Block {
  static constexpr int kBytes = 24, kQuants = 8, kHigh = 4, kBias = 0;
  static constexpr bool kMin = true, kWide = false;
};
struct Q8_0Block {
  static constexpr int kBytes = 34, kQuants = 2, kHigh = -1, kBias = 0;
  static constexpr bool kMin = false, kWide = true;
};

APR_REGION_AVX2_BEGIN
namespace q4_0_avx2 {

using namespace apr::cpu::avx2;

// Bit j of the word to bit 4 of byte j.
APR_FN __m256i fifth_bits(const uint8_t* p) {
  uint32_t word;
  __builtin_memcpy(&word, p, 4);
  // Each byte of the vector gets its byte of the word, then keeps its bit.
  const __m256i bytes =
      _mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int>(word)),
                          _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303));
  const __m256i bit = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201u));
  return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit), _mm256_set1_epi8(16));
}

// The 32 integers as stored: unsigned, q + kBias; for bytes q itself.
template <class Block>
APR_FN __m256i quants(const uint8_t* block) {
  if constexpr (Block::kWide) {
    return load32(block + Block::kQuants);
  } else {
    const __m128i bytes = load16(block + Block::kQuants);
    __m256i q = _mm256_and_si256(_mm256_setr_m128i(bytes, _mm_srli_epi16(bytes, 4)), _mm256_set1_epi8(15));
    if constexpr (Block::kHigh >= 0) q = _mm256_or_si256(q, fifth_bits(block + Block::kHigh));
    return q;
  }
}

template <class Block>
void unpack_int(const void* row, uint64_t k0, uint64_t cols, int8_t* q, float* scale, float* offset) {
  const uint8_t* block = static_cast<const uint8_t*>(row) + k0 / 32 * Block::kBytes;
  for (uint64_t k = 0; k < cols; k += 32, block += Block::kBytes) {
    __m256i v = quants<Block>(block);
    if constexpr (Block::kBias != 0) v = _mm256_sub_epi8(v, _mm256_set1_epi8(Block::kBias));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(q + k), v);
    scale[k / 32] = half_at(block);
    offset[k / 32] = Block::kMin ? half_at(block + 2) : 0.0f;
  }
}

// d of eight blocks, and the offset that goes with their stored integers: m, or -kBias * d.
struct Factors {
  __m256 scale, offset;
};
template <class Block>
APR_FN Factors factors(const uint8_t* block) {
  constexpr int b = Block::kBytes;
  const __m256i words =
      _mm256_i32gather_epi32(reinterpret_cast<const int*>(block),
                             _mm256_setr_epi32(0, b, 2 * b, 3 * b, 4 * b, 5 * b, 6 * b, 7 * b), 1);
  // The lower (or upper) halves of eight words to eight halves side by side.
  const __m256i low =
      _mm256_shuffle_epi8(words, _mm256_setr_epi64x(0x0d0c090805040100, -1, 0x0d0c090805040100, -1));
  const __m128i d = _mm256_castsi256_si128(_mm256_permute4x64_epi64(low, 0x08));
  Factors f;
  f.scale = _mm256_cvtph_ps(d);
  if constexpr (Block::kMin) {
    const __m256i high =
        _mm256_shuffle_epi8(words, _mm256_setr_epi64x(0x0f0e0b0a07060302, -1, 0x0f0e0b0a07060302, -1));
    f.offset = _mm256_cvtph_ps(_mm256_castsi256_si128(_mm256_permute4x64_epi64(high, 0x08)));
  } else {
    f.offset = _mm256_mul_ps(f.scale, _mm256_set1_ps(-static_cast<float>(Block::kBias)));
  }
  return f;
}

template <class Block>
struct Gemv {
  static constexpr int kColumns = 256;
  static constexpr int kBytes = 8 * Block::kBytes;
  static constexpr bool kOffset = Block::kMin || Block::kBias != 0;

  APR_FN static __m256 dot(__m256i w, const int8_t* x) {
    return _mm256_cvtepi32_ps(Block::kWide ? dot_i8(w, load32(x)) : dot_u8(w, load32(x)));
  }

  template <int kM>
  APR_FN static void step(const uint8_t* block, uint64_t k, const apr_cpu_gemv& a, __m256* sum) {
    const Factors f = factors<Block>(block);
    alignas(32) float factor[kM][8];
    for (int m = 0; m < kM; ++m) {
      const uint64_t x = m * a.x_stride + k;
      _mm256_store_ps(factor[m], _mm256_mul_ps(f.scale, _mm256_loadu_ps(a.scale + x / 32)));
      if constexpr (kOffset) sum[m] = add_offsets(sum[m], f.offset, a.sum + x / 16);
    }
    for (int b = 0; b < 8; ++b) {
      const __m256i w = quants<Block>(block + b * Block::kBytes);
      for (int m = 0; m < kM; ++m)
        sum[m] =
            _mm256_fmadd_ps(dot(w, a.q + m * a.x_stride + k + 32 * b), _mm256_set1_ps(factor[m][b]), sum[m]);
    }
  }

  template <int kM>
  APR_FN static void last(const uint8_t* block, uint64_t k, const apr_cpu_gemv& a, __m256* sum) {
    for (; k < a.k; k += 32, block += Block::kBytes) {
      const __m256i w = quants<Block>(block);
      const float d = half_at(block),
                  offset = Block::kMin ? half_at(block + 2) : -static_cast<float>(Block::kBias) * d;
      for (int m = 0; m < kM; ++m) {
        const uint64_t x = m * a.x_stride + k;
        sum[m] = _mm256_fmadd_ps(dot(w, a.q + x), _mm256_set1_ps(d * a.scale[x / 32]), sum[m]);
        if constexpr (kOffset) {
          const __m128 s = _mm_set_ss(offset * (a.sum[x / 16] + a.sum[x / 16 + 1]));
          sum[m] = _mm256_add_ps(sum[m], _mm256_set_m128(_mm_setzero_ps(), s));
        }
      }
    }
  }
};

}  // namespace q4_0_avx2
APR_REGION_END

APR_REGION_AVX512_BEGIN
namespace q4_0_avx512 {

using namespace apr::cpu::avx512;

// The 64 integers of two blocks as stored, in natural order.
template <class Block>
APR_FN __m512i two_blocks(const uint8_t* block) {
  const uint8_t *a = block + Block::kQuants, *b = a + Block::kBytes;
  if constexpr (Block::kWide) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(load32(a)), load32(b), 1);
  } else {
    // Bytes of a, a, b, b in the 128-bit lanes; the odd lanes shifted.
    const __m512i bytes = _mm512_mask_broadcast_i32x4(load16_four_times(a), 0xff00, load16(b));
    const __m512i shift = _mm512_set_epi64(4, 4, 0, 0, 4, 4, 0, 0);
    const __m512i q = _mm512_and_si512(_mm512_srlv_epi64(bytes, shift), _mm512_set1_epi8(15));
    if constexpr (Block::kHigh >= 0) {
      uint32_t first, second;
      __builtin_memcpy(&first, block + Block::kHigh, 4);
      __builtin_memcpy(&second, block + Block::kBytes + Block::kHigh, 4);
      const __mmask64 bits = static_cast<uint64_t>(second) << 32 | first;
      return _mm512_or_si512(q, _mm512_maskz_mov_epi8(bits, _mm512_set1_epi8(16)));
    }
    return q;
  }
}

template <class Block>
struct Gemv {
  static constexpr int kColumns = 256;
  static constexpr int kBytes = 8 * Block::kBytes;
  static constexpr bool kOffset = Block::kMin || Block::kBias != 0;

  template <int kM>
  APR_FN static void step(const uint8_t* block, uint64_t k, const apr_cpu_gemv& a, __m512* sum) {
    const q4_0_avx2::Factors f = q4_0_avx2::factors<Block>(block);
    __m512i z[4];
    for (int i = 0; i < 4; ++i) z[i] = two_blocks<Block>(block + 2 * i * Block::kBytes);
    const __m512 offsets = repeat_pairs(f.offset);
    for (int m = 0; m < kM; ++m) {
      const uint64_t x = m * a.x_stride + k;
      const __m256 factor = _mm256_mul_ps(f.scale, _mm256_loadu_ps(a.scale + x / 32));
      if constexpr (Block::kWide) {
        // A lane of |q| * 127, four times, needs 17 bits: no packing.
        for (int i = 0; i < 4; ++i) {
          const __m512i lanes =
              _mm512_set_epi32(2 * i + 1, 2 * i + 1, 2 * i + 1, 2 * i + 1, 2 * i + 1, 2 * i + 1, 2 * i + 1,
                               2 * i + 1, 2 * i, 2 * i, 2 * i, 2 * i, 2 * i, 2 * i, 2 * i, 2 * i);
          const __m512 dots = _mm512_cvtepi32_ps(dot_i8(z[i], load64(a.q + x + 64 * i)));
          sum[m] =
              _mm512_fmadd_ps(dots, _mm512_permutexvar_ps(lanes, _mm512_castps256_ps512(factor)), sum[m]);
        }
      } else {
        __m512i dot[4];
        for (int i = 0; i < 4; ++i)
          dot[i] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), z[i], load64(a.q + x + 64 * i));
        const __m512i dots = quarter_sums(dot[0], dot[1], dot[2], dot[3], _mm512_set1_epi16(1));
        sum[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), to_quarter_order(factor), sum[m]);
      }
      if constexpr (kOffset) sum[m] = _mm512_fmadd_ps(offsets, _mm512_loadu_ps(a.sum + x / 16), sum[m]);
    }
  }

  template <int kM>
  APR_FN static void last(const uint8_t* block, uint64_t k, const apr_cpu_gemv& a, __m512* sum) {
    __m256 part[kM];
    for (int m = 0; m < kM; ++m) part[m] = _mm256_setzero_ps();
    q4_0_avx2::Gemv<Block>::template last<kM>(block, k, a, part);
    for (int m = 0; m < kM; ++m) sum[m] = _mm512_add_ps(sum[m], _mm512_zextps256_ps512(part[m]));
  }
};

}  // namespace q4_0_avx512
APR_REGION_END

#endif
