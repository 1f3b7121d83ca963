// Integer GEMM with VNNI: vpdpbusd adds, in each of 16 lanes, four products of unsigned and signed bytes. Lanes are rows of
// W, whose quads lie side by side; a token's quad is broadcast.
//
// Weights are made unsigned by +128; starting the sum at -128 * sum(q of the token) takes that off again, exactly.
// A block of 6 tokens by 32 rows keeps 12 integer and 12 float sums in registers. Per 32 columns and 16 outputs that is 8
// vpdpbusd and 3 float operations (4 with an offset): 85 to 93 multiply-adds a cycle at two 512-bit ports.
#pragma once

#include <immintrin.h>

#include "kernels.h"

namespace apr::cpu {

struct IntAvx512 {
  static constexpr int kTokens = 6;

  // 16 rows x 4 quads to 4 vectors of 16 quads.
  static void transpose(const int8_t* q, uint64_t stride, uint8_t* out, uint64_t out_stride) {
    const __m512i bias = _mm512_set1_epi8(-128);
    __m512i z[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      // Rows j, j + 4, j + 8, j + 12, one per 128-bit lane: put there by loads, so that only the quads within a lane have
      // to be shuffled.
      const auto row = [&](int r) {
        return _mm_loadu_si128(reinterpret_cast<const __m128i*>(q + r * stride));
      };
      z[j] = _mm512_castsi128_si512(row(j));
      z[j] = _mm512_mask_broadcast_i32x4(z[j], 0x00f0, row(j + 4));
      z[j] = _mm512_mask_broadcast_i32x4(z[j], 0x0f00, row(j + 8));
      z[j] = _mm512_mask_broadcast_i32x4(z[j], 0xf000, row(j + 12));
    }
    const __m512i a = _mm512_unpacklo_epi32(z[0], z[1]), b = _mm512_unpacklo_epi32(z[2], z[3]);
    const __m512i c = _mm512_unpackhi_epi32(z[0], z[1]), d = _mm512_unpackhi_epi32(z[2], z[3]);
    const __m512i quads[4] = {_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b),
                              _mm512_unpacklo_epi64(c, d), _mm512_unpackhi_epi64(c, d)};
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) _mm512_store_si512(out + i * out_stride, _mm512_xor_si512(quads[i], bias));
  }

  static PanelKind pack(const int8_t* q, uint32_t blocks, uint8_t* panel) {
    const uint64_t stride = static_cast<uint64_t>(blocks) * kActBlock;
    for (uint64_t col = 0; col < stride; col += 16)
      for (int half = 0; half < 2; ++half)
        transpose(q + half * 16 * stride + col, stride, panel + col * kPanelRows + half * 64, kPanelRows * 4);
    return PanelKind::Biased128;
  }

  template <int kM, int kSubs, bool kOffset>
  static void block(const GemmInt& g, uint32_t m0) {
    constexpr int kSteps = 8 / kSubs;
    const IntPanel& p = *g.panel;
    const uint64_t blocks_stride = g.stride / kActBlock;
    const int8_t* a = g.q + m0 * g.stride;
    const float* a_scale = g.scale + m0 * blocks_stride;
    const float* a_sum = (kSubs == 1 ? g.sum32 : g.sum16) + m0 * blocks_stride * kSubs;
    const int32_t* a_bias = (kSubs == 1 ? g.bias32 : g.bias16) + m0 * blocks_stride * kSubs;
    float* c = g.c + m0 * kPanelRows;
    __m512 total[kM][2];
#pragma GCC unroll 6
    for (int i = 0; i < kM; ++i)
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j)
        total[i][j] = g.accumulate ? _mm512_load_ps(c + i * kPanelRows + 16 * j) : _mm512_setzero_ps();

    const uint8_t* w = p.w;
    const float *scale = p.scale, *offset = p.offset;
    for (uint32_t s = 0; s < p.blocks * kSubs; ++s) {
      __m512i sum[kM][2];
#pragma GCC unroll 6
      for (int i = 0; i < kM; ++i)
        sum[i][0] = sum[i][1] = _mm512_set1_epi32(a_bias[i * blocks_stride * kSubs + s]);
#pragma GCC unroll 8
      for (int step = 0; step < kSteps; ++step, w += 2 * 64) {
        const __m512i w0 = _mm512_load_si512(w), w1 = _mm512_load_si512(w + 64);
#pragma GCC unroll 6
        for (int i = 0; i < kM; ++i) {
          int32_t quad;
          __builtin_memcpy(&quad, a + i * g.stride + s * (kActBlock / kSubs) + 4 * step, 4);
          const __m512i x = _mm512_set1_epi32(quad);
          sum[i][0] = _mm512_dpbusd_epi32(sum[i][0], w0, x);
          sum[i][1] = _mm512_dpbusd_epi32(sum[i][1], w1, x);
        }
      }
      const __m512 scale0 = _mm512_load_ps(scale), scale1 = _mm512_load_ps(scale + 16);
      scale += kPanelRows;
#pragma GCC unroll 6
      for (int i = 0; i < kM; ++i) {
        const __m512 x = _mm512_set1_ps(a_scale[i * blocks_stride + s / kSubs]);
        total[i][0] = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sum[i][0]), scale0), x, total[i][0]);
        total[i][1] = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sum[i][1]), scale1), x, total[i][1]);
      }
      if constexpr (kOffset) {
        const __m512 offset0 = _mm512_load_ps(offset), offset1 = _mm512_load_ps(offset + 16);
        offset += kPanelRows;
#pragma GCC unroll 6
        for (int i = 0; i < kM; ++i) {
          const __m512 x = _mm512_set1_ps(a_sum[i * blocks_stride * kSubs + s]);
          total[i][0] = _mm512_fmadd_ps(offset0, x, total[i][0]);
          total[i][1] = _mm512_fmadd_ps(offset1, x, total[i][1]);
        }
      }
    }
#pragma GCC unroll 6
    for (int i = 0; i < kM; ++i)
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) _mm512_store_ps(c + i * kPanelRows + 16 * j, total[i][j]);
  }

  // Blocks of 6 tokens, then as few smaller ones as the rest needs, none smaller than it must be.
  template <int kSubs, bool kOffset>
  static void tokens(const GemmInt& g) {
    const uint32_t n_blocks = (g.m + kTokens - 1) / kTokens;
    for (uint32_t b = 0; b < n_blocks; ++b) {
      const uint32_t begin = static_cast<uint32_t>(uint64_t{g.m} * b / n_blocks);
      const uint32_t end = static_cast<uint32_t>(uint64_t{g.m} * (b + 1) / n_blocks);
      switch (end - begin) {
        case 6:
          block<6, kSubs, kOffset>(g, begin);
          break;
        case 5:
          block<5, kSubs, kOffset>(g, begin);
          break;
        case 4:
          block<4, kSubs, kOffset>(g, begin);
          break;
        case 3:
          block<3, kSubs, kOffset>(g, begin);
          break;
        case 2:
          block<2, kSubs, kOffset>(g, begin);
          break;
        default:
          block<1, kSubs, kOffset>(g, begin);
          break;
      }
    }
  }

  static void run(const GemmInt& g) {
    if (g.panel->subs == 1)
      g.panel->offset ? tokens<1, true>(g) : tokens<1, false>(g);
    else
      g.panel->offset ? tokens<2, true>(g) : tokens<2, false>(g);
  }
};

}  // namespace apr::cpu
