// Kernels on one row of activations, for any vector type of the simd_*.h headers.
#pragma once

#include "kernels.h"

namespace apr::cpu {

// exp(x) within 2 units in the last place; 0 below -104, infinity above 89, NaN for NaN.
// x = n ln2 + r; exp(r) = 1 + r + r^2 p(r) with p the polynomial of degree 4 that minimises the largest relative error on
// |r| <= ln2 / 2 (4e-9 with these rounded coefficients).
template <class V>
inline V exp(V x) {
  x = V::min(V::set(89.0f), V::max(V::set(-104.0f), x));
  const V n = V::round(x * V::set(1.44269504f));
  V r = V::fma(n, V::set(-0.693359375f), x);  // the high part of ln2 has 10 bits: its product with n is exact
  r = V::fma(n, V::set(2.12194440e-4f), r);
  V p = V::set(0.0013814467f);
  p = V::fma(p, r, V::set(0.008368781f));
  p = V::fma(p, r, V::set(0.041668393f));
  p = V::fma(p, r, V::set(0.1666652f));
  p = V::fma(p, r, V::set(0.49999994f));
  return V::scale(V::fma(p, r * r, r) + V::set(1.0f), n);
}

template <class V>
struct Rows {
  static constexpr int W = V::kWidth;

  static void rms_norm(const float* x, const float* w, uint32_t groups, uint32_t width, float eps, float* y) {
    for (uint32_t g = 0; g < groups; ++g, x += width, y += width) {
      const double mean = V::sum_squares(x, width) / width;
      const float factor = static_cast<float>(1.0 / __builtin_sqrt(mean + static_cast<double>(eps)));
      const V f = V::set(factor);
      uint32_t i = 0;
      for (; i + W <= width; i += W) (V::load(x + i) * f * V::load(w + i)).store(y + i);
      for (; i < width; ++i) y[i] = x[i] * factor * w[i];
    }
  }

  static void add(const float* a, const float* b, uint64_t n, float* y) {
    uint64_t i = 0;
    for (; i + W <= n; i += W) (V::load(a + i) + V::load(b + i)).store(y + i);
    for (; i < n; ++i) y[i] = a[i] + b[i];
  }

  static V swiglu(V gate, V up) { return gate / (V::set(1.0f) + exp(V::zero() - gate)) * up; }
  static void swiglu(const float* gate, const float* up, uint64_t n, float* y) {
    uint64_t i = 0;
    for (; i + W <= n; i += W) swiglu(V::load(gate + i), V::load(up + i)).store(y + i);
    if (const int rest = static_cast<int>(n - i))
      swiglu(V::load_n(gate + i, rest), V::load_n(up + i, rest)).store_n(y + i, rest);
  }

  static void rope_adjacent(const float* x, const float* table, uint32_t heads, uint32_t head_dim,
                            uint32_t dims, float* y) {
    const uint32_t half = dims / 2;
    const float *cosine = table, *sine = table + half;
    for (uint32_t h = 0; h < heads; ++h, x += head_dim, y += head_dim) {
      for (uint32_t i = 0; i < half; ++i) {
        const float a = x[2 * i], b = x[2 * i + 1];
        y[2 * i] = a * cosine[i] - b * sine[i];
        y[2 * i + 1] = b * cosine[i] + a * sine[i];
      }
      for (uint32_t i = dims; i < head_dim; ++i) y[i] = x[i];
    }
  }

  static void rope_halves(const float* x, const float* table, uint32_t heads, uint32_t head_dim,
                          uint32_t dims, float* y) {
    const uint32_t half = dims / 2;
    const float *cosine = table, *sine = table + half;
    for (uint32_t h = 0; h < heads; ++h, x += head_dim, y += head_dim) {
      uint32_t i = 0;
      for (; i + W <= half; i += W) {
        const V a = V::load(x + i), b = V::load(x + half + i), c = V::load(cosine + i), s = V::load(sine + i);
        (a * c - b * s).store(y + i);
        (b * c + a * s).store(y + half + i);
      }
      for (; i < half; ++i) {
        const float a = x[i], b = x[half + i];
        y[i] = a * cosine[i] - b * sine[i];
        y[half + i] = b * cosine[i] + a * sine[i];
      }
      for (i = dims; i < head_dim; ++i) y[i] = x[i];
    }
  }

  static void quantize(const float* x, uint64_t begin, uint64_t end, const QuantRow& row) {
    for (uint64_t i = begin; i < end; i += kActBlock) {
      float padded[kActBlock];
      const float* from = x + i;
      if (end - i < kActBlock) {
        for (uint64_t j = 0; j < kActBlock; ++j) padded[j] = i + j < end ? from[j] : 0.0f;
        from = padded;
      }
      const uint64_t block = i / kActBlock;
      const uint32_t bits = V::abs_max_bits(from);
      float most, scale, factor[2];
      __builtin_memcpy(&most, &bits, 4);
      scale = most / 127.0f;
      const float inverse = 127.0f / most;
      int32_t sum[2] = {0, 0};
      if (bits >= 0x7f800000u) {
        scale = factor[0] = factor[1] = __builtin_nanf("");
        __builtin_memset(row.q + i, 0, kActBlock);
      } else if (inverse > 3.4028234e38f) {  // also most = 0
        scale = factor[0] = factor[1] = 0.0f;
        __builtin_memset(row.q + i, 0, kActBlock);
      } else {
        V::quantize(from, inverse, row.q + i, sum);
        factor[0] = scale * static_cast<float>(sum[0]);
        factor[1] = scale * static_cast<float>(sum[1]);
      }
      row.scale[block] = scale;
      row.sum16[2 * block] = factor[0];
      row.sum16[2 * block + 1] = factor[1];
      row.sum32[block] = scale != scale ? scale : scale * static_cast<float>(sum[0] + sum[1]);
      row.bias16[2 * block] = -128 * sum[0];
      row.bias16[2 * block + 1] = -128 * sum[1];
      row.bias32[block] = -128 * (sum[0] + sum[1]);
    }
  }

  static int64_t argmax(const float* x, uint64_t n) {
    constexpr uint64_t kBlock = 1024;
    if (n == 0) return -1;
    float best = -__builtin_inff();
    uint64_t best_block = 0;
    for (uint64_t block = 0; block < n; block += kBlock) {
      const uint64_t end = block + kBlock < n ? block + kBlock : n;
      V most = V::set(-__builtin_inff()), zero = V::zero();
      uint64_t i = block;
      for (; i + W <= end; i += W) {
        const V v = V::load(x + i);
        most = V::max(most, v);
        zero = V::fma(v, V::zero(), zero);  // NaN after a NaN or an infinity
      }
      float value = V::largest(most), check = V::sum(zero);
      for (; i < end; ++i) value = x[i] > value ? x[i] : value, check += x[i] * 0.0f;
      if (check != check)
        for (i = block, value = -__builtin_inff(); i < end; ++i) {
          if (x[i] != x[i]) return -1;
          value = x[i] > value ? x[i] : value;
        }
      if (value > best) best = value, best_block = block;
    }
    for (uint64_t i = best_block;; ++i)
      if (x[i] == best) return static_cast<int64_t>(i);
  }

  static void to_half(const float* x, uint64_t n, uint16_t* y) {
    uint64_t i = 0;
    for (; i + W <= n; i += W) V::load(x + i).to_half(y + i);
    for (; i < n; ++i) y[i] = V::float_to_half(x[i]);
  }
};

}  // namespace apr::cpu
