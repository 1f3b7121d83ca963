// C[M, rows] (+)= X[M, K] W[rows, K]^T in floats, both operands along K, for any vector type of the simd_*.h headers: a
// block of kBlockRows x 4 sums stays in registers, one vector of partial sums each, folded together at the end of K.
#pragma once

#include "kernels.h"

namespace apr::cpu {

template <class V>
struct GemmFloatOf {
  static constexpr int W = V::kWidth;
  static constexpr int kCols = 4;

  template <int kRows>
  static void block(const GemmFloat& g, uint32_t m, uint32_t n) {
    constexpr int kSums = (kRows * kCols + W - 1) / W;
    V acc[kSums * W];
    for (V& a : acc) a = V::zero();
    const float* x = g.x + m * g.x_stride;
    const float* w = g.w + n * g.w_stride;
    for (uint64_t k = 0; k < g.k; k += W) {
      V b[kCols];
#pragma GCC unroll 4
      for (int j = 0; j < kCols; ++j) b[j] = V::load(w + j * g.w_stride + k);
#pragma GCC unroll 4
      for (int i = 0; i < kRows; ++i) {
        const V a = V::load(x + i * g.x_stride + k);
#pragma GCC unroll 4
        for (int j = 0; j < kCols; ++j) acc[i * kCols + j] = V::fma(a, b[j], acc[i * kCols + j]);
      }
    }
    float sums[kSums * W];
    for (int s = 0; s < kSums; ++s) V::sums(acc + s * W).store(sums + s * W);
    for (int i = 0; i < kRows; ++i) {
      float* c = g.c + (m + i) * kPanelRows + n;
      for (int j = 0; j < kCols; ++j) c[j] = g.accumulate ? c[j] + sums[i * kCols + j] : sums[i * kCols + j];
    }
  }

  static void run(const GemmFloat& g) {
    uint32_t m = 0;
    for (; m + V::kBlockRows <= g.m; m += V::kBlockRows)
      for (uint32_t n = 0; n < g.rows; n += kCols) block<V::kBlockRows>(g, m, n);
    for (; m < g.m; ++m)
      for (uint32_t n = 0; n < g.rows; n += kCols) block<1>(g, m, n);
  }
};

}  // namespace apr::cpu
