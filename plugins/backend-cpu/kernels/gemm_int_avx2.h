// Integer GEMM with AVX2: vpmaddubsw multiplies unsigned by signed bytes and adds pairs to int16, with saturation. Lanes
// are rows of W, whose quads lie side by side; a token's quad is broadcast.
//
// How many int16 products may be added before they have to be widened depends on the range of the weights, so the panel's
// pack looks at them once: 4-bit weights sum a whole block of 32 columns in int16 (15 * 127 * 2 * 8 = 30480), 6-bit ones
// two steps (63 * 127 * 2 * 2 = 32004), 8-bit ones one, with the sign moved to the token's side (128 * 127 * 2 = 32512).
#pragma once

#include <immintrin.h>

#include "kernels.h"

namespace apr::cpu {

struct IntAvx2 {
  static constexpr int kTokens = 4;

  static PanelKind kind_of(const int8_t* q, uint64_t n) {
    __m256i low = _mm256_setzero_si256(), high = low;
    for (uint64_t i = 0; i < n; i += 32) {
      const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q + i));
      low = _mm256_min_epi8(low, v);
      high = _mm256_max_epi8(high, v);
    }
    const auto beyond = [](__m256i a, __m256i b) {
      return _mm256_movemask_epi8(_mm256_cmpgt_epi8(a, b)) != 0;
    };
    const auto all = [](int x) { return _mm256_set1_epi8(static_cast<char>(x)); };
    if (!beyond(high, all(15)) && !beyond(all(0), low)) return PanelKind::Plain4;
    if (!beyond(high, all(7)) && !beyond(all(-8), low)) return PanelKind::Biased8;
    if (!beyond(high, all(31)) && !beyond(all(-32), low)) return PanelKind::Biased32;
    return PanelKind::Signed;
  }

  static int bias_of(PanelKind kind) {
    switch (kind) {
      case PanelKind::Plain4:
      case PanelKind::Signed:
        return 0;
      case PanelKind::Biased8:
        return 8;
      case PanelKind::Biased32:
        return 32;
      case PanelKind::Biased128:
        return 128;
    }
    return 0;
  }

  static PanelKind pack(const int8_t* q, uint32_t blocks, uint8_t* panel) {
    const uint64_t stride = static_cast<uint64_t>(blocks) * kActBlock;
    const PanelKind kind = kind_of(q, stride * kPanelRows);
    const __m256i bias = _mm256_set1_epi8(static_cast<char>(bias_of(kind)));
    for (uint64_t col = 0; col < stride; col += 4) {
      for (uint32_t n = 0; n < kPanelRows; n += 8) {
        int32_t quads[8];
        for (uint32_t i = 0; i < 8; ++i) __builtin_memcpy(quads + i, q + (n + i) * stride + col, 4);
        const __m256i v =
            _mm256_setr_epi32(quads[0], quads[1], quads[2], quads[3], quads[4], quads[5], quads[6], quads[7]);
        _mm256_store_si256(reinterpret_cast<__m256i*>(panel + col * kPanelRows + 4 * n),
                           _mm256_add_epi8(v, bias));
      }
    }
    return kind;
  }

  // 32 or 16 columns of kM tokens by 16 rows of W to int32. kChain: steps that are added in int16.
  template <int kM, int kSteps, int kChain, bool kSigned>
  static void products(const int8_t* a, uint64_t stride, const uint8_t* w, __m256i sum[kM][2]) {
    const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 8
    for (int chain = 0; chain < kSteps; chain += kChain) {
      __m256i part[kM][2];
#pragma GCC unroll 8
      for (int step = chain; step < chain + kChain; ++step) {
        const __m256i w0 = _mm256_load_si256(reinterpret_cast<const __m256i*>(w + step * kPanelRows * 4));
        const __m256i w1 =
            _mm256_load_si256(reinterpret_cast<const __m256i*>(w + step * kPanelRows * 4 + 32));
        const __m256i u0 = kSigned ? _mm256_abs_epi8(w0) : w0, u1 = kSigned ? _mm256_abs_epi8(w1) : w1;
#pragma GCC unroll 4
        for (int i = 0; i < kM; ++i) {
          int32_t quad;
          __builtin_memcpy(&quad, a + i * stride + 4 * step, 4);
          const __m256i x = _mm256_set1_epi32(quad);
          const __m256i p0 = _mm256_maddubs_epi16(u0, kSigned ? _mm256_sign_epi8(x, w0) : x);
          const __m256i p1 = _mm256_maddubs_epi16(u1, kSigned ? _mm256_sign_epi8(x, w1) : x);
          part[i][0] = step == chain ? p0 : _mm256_add_epi16(part[i][0], p0);
          part[i][1] = step == chain ? p1 : _mm256_add_epi16(part[i][1], p1);
        }
      }
#pragma GCC unroll 4
      for (int i = 0; i < kM; ++i)
#pragma GCC unroll 2
        for (int j = 0; j < 2; ++j) {
          const __m256i wide = _mm256_madd_epi16(part[i][j], ones);
          sum[i][j] = chain == 0 ? wide : _mm256_add_epi32(sum[i][j], wide);
        }
    }
  }

  // The float sums stay in c: with 16 registers the integer ones leave no room for them.
  template <int kM, int kSubs, int kChain, bool kSigned>
  static void block(const GemmInt& g, uint32_t m0, uint32_t n0, int shift) {
    constexpr int kSteps = 8 / kSubs;
    const IntPanel& p = *g.panel;
    const uint64_t blocks_stride = g.stride / kActBlock;
    const int8_t* a = g.q + m0 * g.stride;
    const float* a_scale = g.scale + m0 * blocks_stride;
    const float* a_sum = (kSubs == 1 ? g.sum32 : g.sum16) + m0 * blocks_stride * kSubs;
    const int32_t* a_bias = (kSubs == 1 ? g.bias32 : g.bias16) + m0 * blocks_stride * kSubs;
    float* c = g.c + m0 * kPanelRows + n0;
    if (!g.accumulate)
      for (int i = 0; i < kM; ++i)
        for (int j = 0; j < 2; ++j) _mm256_store_ps(c + i * kPanelRows + 8 * j, _mm256_setzero_ps());
    for (uint32_t s = 0; s < p.blocks * kSubs; ++s) {
      __m256i sum[kM][2];
      products < kM, kSteps,
          kChain<kSteps ? kChain : kSteps, kSigned>(a + s * (kActBlock / kSubs), g.stride,
                                                    p.w + (s * kSteps * kPanelRows + n0) * 4, sum);
      const float* scale = p.scale + s * kPanelRows + n0;
#pragma GCC unroll 4
      for (int i = 0; i < kM; ++i) {
        const __m256 x = _mm256_set1_ps(a_scale[i * blocks_stride + s / kSubs]);
        const __m256 y = _mm256_set1_ps(p.offset ? a_sum[i * blocks_stride * kSubs + s] : 0.0f);
        // -128 * sum is a multiple of 128: the shift divides it exactly.
        const __m256i bias =
            _mm256_set1_epi32(shift < 0 ? 0 : a_bias[i * blocks_stride * kSubs + s] >> shift);
#pragma GCC unroll 2
        for (int j = 0; j < 2; ++j) {
          float* out = c + i * kPanelRows + 8 * j;
          const __m256 product = _mm256_cvtepi32_ps(_mm256_add_epi32(sum[i][j], bias));
          __m256 total =
              _mm256_fmadd_ps(_mm256_mul_ps(product, _mm256_load_ps(scale + 8 * j)), x, _mm256_load_ps(out));
          if (p.offset)
            total = _mm256_fmadd_ps(_mm256_load_ps(p.offset + s * kPanelRows + n0 + 8 * j), y, total);
          _mm256_store_ps(out, total);
        }
      }
    }
  }

  template <int kSubs, int kChain, bool kSigned>
  static void tokens(const GemmInt& g, int shift) {
    for (uint32_t n = 0; n < kPanelRows; n += 16) {
      uint32_t m = 0;
      for (; m + kTokens <= g.m; m += kTokens) block<kTokens, kSubs, kChain, kSigned>(g, m, n, shift);
      for (; m < g.m; ++m) block<1, kSubs, kChain, kSigned>(g, m, n, shift);
    }
  }

  template <int kSubs>
  static void kinds(const GemmInt& g) {
    switch (g.panel->kind) {
      case PanelKind::Plain4:
        return tokens<kSubs, 8, false>(g, -1);
      case PanelKind::Biased8:
        return tokens<kSubs, 8, false>(g, 4);
      case PanelKind::Biased32:
        return tokens<kSubs, 2, false>(g, 2);
      case PanelKind::Biased128:
        return;  // never made by this pack
      case PanelKind::Signed:
        return tokens<kSubs, 1, true>(g, -1);
    }
  }

  static void run(const GemmInt& g) { g.panel->subs == 1 ? kinds<1>(g) : kinds<2>(g); }
};

}  // namespace apr::cpu
