// Moving tiles of floats: scales into the order in which a GEMM reads them, results to their rows.
#pragma once

#include "kernels.h"

namespace apr::cpu {

template <class V>
struct Tiles {
  static constexpr int W = V::kWidth;

  static bool transpose(const float* from, uint64_t stride, uint32_t cols, float* to) {
    V any = V::zero();
    uint32_t col = 0;
    for (; col + W <= cols; col += W)
      for (uint32_t row = 0; row < kPanelRows; row += W) {
        V v[W];
#pragma GCC unroll 16
        for (int i = 0; i < W; ++i) {
          v[i] = V::load(from + (row + i) * stride + col);
          any = V::either(any, v[i]);
        }
        V::transpose(v);
#pragma GCC unroll 16
        for (int i = 0; i < W; ++i) v[i].store(to + (col + i) * kPanelRows + row);
      }
    bool found = V::has_bits(any);
    for (; col < cols; ++col)
      for (uint32_t row = 0; row < kPanelRows; ++row) {
        const float x = from[row * stride + col];
        found |= x != 0.0f;
        to[col * kPanelRows + row] = x;
      }
    return found;
  }

  static void store(const float* c, uint32_t m, uint32_t n, const float* bias, float* y, uint64_t y_stride) {
    if (n == kPanelRows) {
      V b[kPanelRows / W];
      for (uint32_t i = 0; i < kPanelRows / W; ++i) b[i] = bias ? V::load(bias + i * W) : V::zero();
      for (uint32_t row = 0; row < m; ++row, c += kPanelRows, y += y_stride)
#pragma GCC unroll 8
        for (uint32_t i = 0; i < kPanelRows / W; ++i) {
          const V v = V::load(c + i * W);
          (bias ? v + b[i] : v).store(y + i * W);
        }
      return;
    }
    for (uint32_t row = 0; row < m; ++row, c += kPanelRows, y += y_stride)
      for (uint32_t i = 0; i < n; ++i) y[i] = bias ? c[i] + bias[i] : c[i];
  }
};

}  // namespace apr::cpu
