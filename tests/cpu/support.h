// Numbers for the tests: inputs with edges, errors against norms, a small model.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "backend.h"

namespace apr::test {

// [rows][width]: normal numbers; every third row has edges: zeros, subnormals, an outlier, large and tiny blocks.
inline std::vector<float> edgy_rows(uint32_t rows, uint32_t width, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(size_t{rows} * width);
  for (uint32_t r = 0; r < rows; ++r)
    for (uint32_t i = 0; i < width; ++i) {
      float v = normal(rng);
      if (r % 3 == 2) {
        switch (rng() % 8) {
          case 0:
            v = 0.0f;
            break;
          case 1:
            v = -0.0f;
            break;
          case 2:
            v = 1e-42f;
            break;
          case 3:
            v *= 1e-20f;
            break;
          case 4:
            v *= 300.0f;
            break;
          default:
            break;
        }
        if (i / 32 % 4 == 1) v *= 1e-12f;
      }
      x[size_t{r} * width + i] = v;
    }
  return x;
}

// Tokens 0, 1, 2, ... at those positions: with an embedding of floats, row i of the table is row i of the batch.
inline std::vector<Token> count_up(uint32_t n, int32_t first = 0, int32_t sequence = 0) {
  std::vector<Token> t;
  for (uint32_t i = 0; i < n; ++i)
    t.push_back({static_cast<int32_t>(i), first + static_cast<int32_t>(i), sequence});
  return t;
}

inline double nmse(const std::vector<float>& a, const std::vector<float>& b) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    error += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    norm += double{b[i]} * b[i];
  }
  return error / norm;
}

inline float round_to_half(float x) {
  const double a = std::abs(double{x});
  if (a >= 65520) return std::copysign(INFINITY, x);
  const int e = a < 0x1p-14 ? -24 : std::ilogb(a) - 10;  // exponent of the last bit
  return static_cast<float>(std::copysign(std::ldexp(std::nearbyint(std::ldexp(a, -e)), e), x));
}

// What quantising activations for the integer kernels is defined as.
struct QuantizedRow {
  std::vector<int> q;
  std::vector<float> scale;  // of 32 columns
};
inline QuantizedRow quantize_row(const float* x, uint64_t k) {
  QuantizedRow r{std::vector<int>(k), std::vector<float>((k + 31) / 32)};
  for (uint64_t b = 0; b < k; b += 32) {
    const uint64_t end = std::min(b + 32, k);
    float most = 0;
    for (uint64_t i = b; i < end; ++i) most = std::max(most, std::abs(x[i]));
    const float inverse = 127.0f / most;
    r.scale[b / 32] = std::isinf(inverse) ? 0.0f : most / 127.0f;
    for (uint64_t i = b; i < end; ++i)
      r.q[i] = std::isinf(inverse) ? 0 : static_cast<int>(std::nearbyint(x[i] * inverse));
  }
  return r;
}

// A model of two layers with everything in it: biases, norms of heads, rotated parts of heads, a window in the second layer,
// head size 24.
struct SmallModel {
  static constexpr uint32_t kVocab = 200, kDim = 192, kHeads = 8, kKvHeads = 2, kHeadDim = 24, kFfn = 384;
  PlanMaker maker;

  explicit SmallModel(const apr_quant_format& format, bool head_norm = true) {
    uint32_t seed = 1;
    const auto random = [&](uint32_t n, float mean, float deviation) {
      std::mt19937 rng(seed++);
      std::normal_distribution<float> normal(mean, deviation);
      std::vector<float> v(n);
      for (float& x : v) x = normal(rng);
      return maker.vector(v);
    };
    const auto matrix = [&](uint32_t n, uint32_t k) {
      return maker.weight(random_weights(format, n, k, seed++, Range::Bits6));
    };
    std::vector<float> frequencies;
    for (int i = 0; i < 8; ++i) frequencies.push_back(std::pow(10000.0f, -static_cast<float>(i) / 8));
    const int32_t inverse = maker.vector(frequencies);

    int32_t x = maker.embed("embed", maker.weight(random_weights(kFloat32, kVocab, kDim, seed++)));
    for (const char* l : {"blk.0.", "blk.1."}) {
      const std::string b = l;
      const int32_t n = maker.norm(b + "attn_norm", x, random(kDim, 1, 0.1f));
      int32_t q =
          maker.linear(b + "attn_q", n, matrix(kHeads * kHeadDim, kDim), random(kHeads * kHeadDim, 0, 0.1f));
      q = maker.norm(b + "attn_q_norm", q, random(kHeadDim, 1, 0.1f), kHeads);
      q = maker.rope(b + "attn_q_rope", q, inverse, kHeads, APR_ROPE_HALVES);
      int32_t k = maker.linear(b + "attn_k", n, matrix(kKvHeads * kHeadDim, kDim),
                               random(kKvHeads * kHeadDim, 0, 0.1f));
      k = maker.norm(b + "attn_k_norm", k, random(kHeadDim, 1, 0.1f), kKvHeads);
      k = maker.rope(b + "attn_k_rope", k, inverse, kKvHeads, APR_ROPE_HALVES);
      const int32_t v = maker.linear(b + "attn_v", n, matrix(kKvHeads * kHeadDim, kDim));
      const int32_t a = maker.attention(b + "attn_out", q, k, v, kHeads, kKvHeads,
                                        1 / std::sqrt(float{kHeadDim}), b == "blk.1." ? 300 : 0);
      const int32_t o = maker.linear(b + "attn_output", a, matrix(kDim, kHeads * kHeadDim));
      const int32_t r = maker.add(b + "attn_residual", x, o);
      const int32_t f = maker.norm(b + "ffn_norm", r, random(kDim, 1, 0.1f));
      const int32_t gate = maker.linear(b + "ffn_gate", f, matrix(kFfn, kDim));
      const int32_t up = maker.linear(b + "ffn_up", f, matrix(kFfn, kDim));
      const int32_t act = maker.swiglu(b + "ffn_act", gate, up);
      const int32_t down = maker.linear(b + "ffn_down", act, matrix(kDim, kFfn));
      x = maker.add(b + "ffn_residual", r, down);
    }
    if (head_norm) maker.head();
    const int32_t n = maker.norm("output_norm", x, random(kDim, 1, 0.1f));
    if (!head_norm) maker.head();  // then the head's product gathers the wanted tokens itself
    maker.linear("logits", n, matrix(kVocab, kDim));
  }
  const apr_plan& plan() { return maker.plan(); }
};

}  // namespace apr::test
