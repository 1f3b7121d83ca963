// Attention against double precision over the cache's own rounding, and the same bits however the work is cut.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>

#include "support.h"

using namespace apr::test;

namespace {

struct Shape {
  uint32_t heads, kv_heads, head_dim, window, tokens;
};

// q, k and v are embedded: token i's rows are row i of three tables.
struct Model {
  PlanMaker maker;
  Shape s;
  float scale;
  std::vector<float> q, k, v;

  Model(const Shape& shape, uint32_t seed)
      : s(shape), scale(1.0f / std::sqrt(static_cast<float>(s.head_dim))) {
    q = edgy_rows(s.tokens, s.heads * s.head_dim, seed);
    k = edgy_rows(s.tokens, s.kv_heads * s.head_dim, seed + 1);
    v = edgy_rows(s.tokens, s.kv_heads * s.head_dim, seed + 2);
    for (float& x : q) x *= 2.0f;  // some rows attend to one key, some to all
    const auto table = [&](const std::vector<float>& x) {
      return maker.weight(exact_weights(s.tokens, x.size() / s.tokens, x));
    };
    const int32_t qi = maker.embed("q", table(q)), ki = maker.embed("k", table(k)),
                  vi = maker.embed("v", table(v));
    const int32_t x = maker.attention("x", qi, ki, vi, s.heads, s.kv_heads, scale, s.window);
    maker.head();
    maker.linear("logits", x, maker.weight(random_weights(kFloat32, 3, s.heads * s.head_dim, 9)));
  }

  // Of one token, given the tokens before it.
  // tolerance: what rounding of the scores may do, by the largest sum |q| |k| and the largest value.
  std::vector<double> expected(uint32_t token, bool precise, std::vector<double>& tolerance) const {
    const auto stored = [&](float x) { return double{precise ? x : round_to_half(x)}; };
    std::vector<double> out;
    const uint32_t first = s.window && token >= s.window ? token - s.window + 1 : 0;
    for (uint32_t h = 0; h < s.heads; ++h) {
      const uint32_t kv = h / (s.heads / s.kv_heads), kv_width = s.kv_heads * s.head_dim;
      std::vector<double> p;
      double most = -INFINITY, sum = 0, score_size = 0, value_size = 0;
      for (uint32_t t = first; t <= token; ++t) {
        double dot = 0, size = 0;
        for (uint32_t d = 0; d < s.head_dim; ++d) {
          const double product = double{q[(token * s.heads + h) * s.head_dim + d]} *
                                 stored(k[t * kv_width + kv * s.head_dim + d]);
          dot += product;
          size += std::abs(product);
          value_size = std::max(value_size, std::abs(stored(v[t * kv_width + kv * s.head_dim + d])));
        }
        p.push_back(dot * scale);
        score_size = std::max(score_size, size * scale);
        most = std::max(most, p.back());
      }
      for (double& x : p) sum += x = std::exp(x - most);
      for (uint32_t d = 0; d < s.head_dim; ++d) {
        double y = 0;
        for (uint32_t t = first; t <= token; ++t)
          y += p[t - first] / sum * stored(v[t * kv_width + kv * s.head_dim + d]);
        out.push_back(y);
        tolerance.push_back(value_size * (1e-6 + 2e-7 * score_size) + 1e-40);
      }
    }
    return out;
  }
};

void check(const std::vector<float>& got, const std::vector<double>& expected,
           const std::vector<double>& tolerance) {
  REQUIRE(got.size() == expected.size());
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(got[i] - expected[i]) / tolerance[i];
    worst = error <= worst ? worst : error;
  }
  CHECK(worst <= 1);
}

}  // namespace

TEST_CASE("attention") {
  const Shape shapes[] = {{4, 2, 64, 0, 70},  {6, 1, 128, 0, 300}, {7, 7, 80, 0, 40},     {8, 1, 96, 17, 90},
                          {14, 2, 64, 0, 33}, {3, 1, 24, 0, 600},  {2, 2, 100, 300, 700}, {1, 1, 1, 0, 20},
                          {40, 1, 16, 0, 50}, {2, 1, 256, 1, 40}};
  uint32_t seed = 1;
  for (const Shape& s : shapes) {
    CAPTURE(s.heads);
    CAPTURE(s.kv_heads);
    CAPTURE(s.head_dim);
    CAPTURE(s.window);
    Model model(s, seed += 3);
    for (const bool precise : {false, true}) {
      CAPTURE(precise);
      std::vector<double> expected, tolerance;
      for (uint32_t t = 0; t < s.tokens; ++t) {
        const std::vector<double> row = model.expected(t, precise, tolerance);
        expected.insert(expected.end(), row.begin(), row.end());
      }
      for (const std::string& isa : instruction_sets()) {
        CAPTURE(isa);
        const SessionOptions session{s.tokens, 1, s.tokens, precise};
        Loaded whole(model.maker.plan(), {isa, 2}, session);
        REQUIRE_MESSAGE(whole.ok(), whole.error());
        const std::vector<float> all = whole.taps(count_up(s.tokens))["x"];
        check(all, expected, tolerance);

        // Token by token, with chunks of the context as tasks or not: the same bits.
        for (const uint32_t threads : {1u, 3u}) {
          Loaded single(model.maker.plan(), {isa, threads}, session);
          std::vector<float> one_by_one;
          for (uint32_t t = 0; t < s.tokens; ++t) {
            const std::vector<float> row =
                single.taps({{static_cast<int32_t>(t), static_cast<int32_t>(t)}})["x"];
            one_by_one.insert(one_by_one.end(), row.begin(), row.end());
          }
          CHECK(one_by_one == all);
        }
      }
    }
  }
}

TEST_CASE("a value that overflows binary16 is confined to the tokens that see it") {
  Model model({4, 2, 32, 0, 40}, 50);
  model.v[20 * 64 + 3] = 1e6f;
  PlanMaker& m = model.maker;
  std::memcpy(const_cast<void*>(m.weights[2].data), model.v.data(), model.v.size() * 4);
  for (const std::string& isa : instruction_sets()) {
    CAPTURE(isa);
    Loaded loaded(m.plan(), {isa, 2});
    const std::vector<float> x = loaded.taps(count_up(40))["x"];
    for (uint32_t t = 0; t < 40; ++t)
      for (uint32_t i = 0; i < 128; ++i)
        if (t < 20 || i % 32 != 3 || i / 64 == 1) REQUIRE(std::isfinite(x[t * 128 + i]));
  }
}

TEST_CASE("keys that are no numbers give no numbers") {
  Model model({2, 1, 16, 0, 40}, 60);
  model.k[10 * 16] = NAN;
  std::memcpy(const_cast<void*>(model.maker.weights[1].data), model.k.data(), model.k.size() * 4);
  for (const std::string& isa : instruction_sets()) {
    CAPTURE(isa);
    Loaded loaded(model.maker.plan(), {isa, 2});
    const std::vector<float> x = loaded.taps(count_up(40))["x"];
    for (uint32_t t = 0; t < 40; ++t) CHECK(std::isnan(x[t * 32]) == (t >= 10));
  }
}
