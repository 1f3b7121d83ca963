// Each operation on rows against double precision, for every instruction set.
#include <doctest/doctest.h>

#include <algorithm>

#include "support.h"

using namespace apr::test;

namespace {

constexpr uint32_t kRows = 37;

// A plan that computes one stage of two embedded rows; gives what the stage put out.
struct Bench {
  PlanMaker maker;
  std::vector<float> a, b;
  int32_t in_a, in_b;

  explicit Bench(uint32_t width, uint32_t seed = 3)
      : a(edgy_rows(kRows, width, seed)), b(edgy_rows(kRows, width, seed + 100)) {
    in_a = maker.embed("a", maker.weight(exact_weights(kRows, width, a)));
    in_b = maker.embed("b", maker.weight(exact_weights(kRows, width, b)));
  }
  std::vector<float> run(const std::string& isa, uint32_t threads, uint32_t rows, int32_t value) {
    if (!finished_) {
      maker.head();
      maker.linear(
          "logits", value,
          maker.weight(random_weights(kFloat32, 3, maker.values[static_cast<size_t>(value)].width, 9)));
      finished_ = true;
    }
    Loaded loaded(maker.plan(), {isa, threads});
    REQUIRE_MESSAGE(loaded.ok(), loaded.error());
    auto stages = loaded.taps(count_up(rows));
    REQUIRE(stages.count("x") == 1);
    CHECK(stages["a"] == std::vector<float>(a.begin(), a.begin() + static_cast<long>(stages["a"].size())));
    CHECK(stages["logits"].size() == rows * 3);
    return stages["x"];
  }

 private:
  bool finished_ = false;
};

template <class Fn>
void everywhere(Fn&& fn) {
  for (const std::string& isa : instruction_sets())
    for (const uint32_t threads : {1u, 3u})
      for (const uint32_t rows : {1u, 6u, kRows}) {
        CAPTURE(isa);
        CAPTURE(threads);
        CAPTURE(rows);
        fn(isa, threads, rows);
      }
}

void check_close(const std::vector<float>& got, size_t rows, size_t width,
                 const std::vector<double>& expected, const std::vector<double>& tolerance) {
  REQUIRE(got.size() == rows * width);
  double worst = 0;
  size_t at = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(got[i] - expected[i]) / tolerance[i];
    if (!(error <= worst)) worst = error, at = i;
  }
  CAPTURE(at);
  CAPTURE(got[at]);
  CAPTURE(expected[at]);
  CHECK(worst <= 1);
}

}  // namespace

TEST_CASE("rms_norm") {
  for (const auto& [width, groups] :
       {std::pair{5u, 1u}, {64u, 1u}, {100u, 1u}, {1537u, 1u}, {96u, 4u}, {120u, 3u}}) {
    CAPTURE(width);
    CAPTURE(groups);
    Bench bench(width);
    const uint32_t n = width / groups;
    std::vector<float> weight = edgy_rows(1, n, 7);
    const int32_t x = bench.maker.norm("x", bench.in_a, bench.maker.vector(weight), groups, 1e-5f);
    std::vector<double> expected, tolerance;
    for (size_t g = 0; g < size_t{kRows} * groups; ++g) {
      const float* row = bench.a.data() + g * n;
      double sum = 0;
      for (uint32_t i = 0; i < n; ++i) sum += double{row[i]} * row[i];
      const double factor = 1 / std::sqrt(sum / n + double{1e-5f});
      for (uint32_t i = 0; i < n; ++i) {
        expected.push_back(row[i] * factor * weight[i]);
        tolerance.push_back(3e-7 * std::abs(expected.back()) + 1e-44);
      }
    }
    everywhere([&](const std::string& isa, uint32_t threads, uint32_t rows) {
      check_close(bench.run(isa, threads, rows, x), rows, width, expected, tolerance);
    });
  }
}

TEST_CASE("add") {
  Bench bench(101);
  const int32_t x = bench.maker.add("x", bench.in_a, bench.in_b);
  everywhere([&](const std::string& isa, uint32_t threads, uint32_t rows) {
    const std::vector<float> got = bench.run(isa, threads, rows, x);
    REQUIRE(got.size() == rows * 101);
    for (size_t i = 0; i < got.size(); ++i) REQUIRE(got[i] == bench.a[i] + bench.b[i]);
  });
}

TEST_CASE("swiglu") {
  Bench bench(149);
  // All of exp's range, and beyond both of its ends.
  for (size_t i = 0; i < bench.a.size(); ++i)
    if (i % 2) bench.a[i] = static_cast<float>(i % 997) * 0.3f - 150.0f;
  bench.a[3] = -1e30f, bench.a[5] = 1e30f, bench.a[7] = 3e38f, bench.a[9] = -3e38f;
  bench.maker = {};
  bench.in_a = bench.maker.embed("a", bench.maker.weight(exact_weights(kRows, 149, bench.a)));
  bench.in_b = bench.maker.embed("b", bench.maker.weight(exact_weights(kRows, 149, bench.b)));
  const int32_t x = bench.maker.swiglu("x", bench.in_a, bench.in_b);
  std::vector<double> expected, tolerance;
  for (size_t i = 0; i < bench.a.size(); ++i) {
    const double gate = bench.a[i];
    expected.push_back(gate / (1 + std::exp(-gate)) * bench.b[i]);
    // Below -88 the sigmoid is subnormal in float, and so is what is left of the product.
    tolerance.push_back(6e-7 * std::abs(expected.back()) +
                        1e-36 * std::max(1.0, std::abs(double{bench.b[i]})));
  }
  everywhere([&](const std::string& isa, uint32_t threads, uint32_t rows) {
    check_close(bench.run(isa, threads, rows, x), rows, 149, expected, tolerance);
  });
}

TEST_CASE("rope") {
  for (const apr_rope_kind kind : {APR_ROPE_ADJACENT, APR_ROPE_HALVES})
    for (const auto& [heads, head_dim, dims] : {std::tuple{2u, 64u, 64u}, {3u, 40u, 20u}, {1u, 6u, 2u}}) {
      CAPTURE(static_cast<int>(kind));
      CAPTURE(head_dim);
      const uint32_t width = heads * head_dim;
      Bench bench(width);
      std::vector<float> frequencies;
      for (uint32_t i = 0; i < dims / 2; ++i)
        frequencies.push_back(std::pow(10000.0f, -2.0f * static_cast<float>(i) / static_cast<float>(dims)));
      const float scale = 1.25f;
      const int32_t x =
          bench.maker.rope("x", bench.in_a, bench.maker.vector(frequencies), heads, kind, scale);
      std::vector<double> expected, tolerance;
      for (uint32_t r = 0; r < kRows; ++r)
        for (uint32_t h = 0; h < heads; ++h) {
          const float* head = bench.a.data() + r * width + h * head_dim;
          for (uint32_t i = 0; i < head_dim; ++i) {
            double value = head[i], size = std::abs(value) * 1e-12;
            if (i < dims) {
              const bool halves = kind == APR_ROPE_HALVES;
              const uint32_t pair = halves ? i % (dims / 2) : i / 2;
              const bool second = halves ? i >= dims / 2 : i % 2 == 1;
              const float first = head[halves ? pair : 2 * pair],
                          other = head[halves ? pair + dims / 2 : 2 * pair + 1];
              const double angle = double{frequencies[pair]} * r, c = std::cos(angle) * scale,
                           s = std::sin(angle) * scale;
              value = second ? other * c + first * s : first * c - other * s;
              size = (std::abs(first) + std::abs(other)) * scale * 2e-7;
            }
            expected.push_back(value);
            tolerance.push_back(size + 1e-43);
          }
        }
      everywhere([&](const std::string& isa, uint32_t threads, uint32_t rows) {
        check_close(bench.run(isa, threads, rows, x), rows, width, expected, tolerance);
      });
    }
}

TEST_CASE("rope far into a context") {
  // The angle at position 20000 has to be as exact as at 1.
  constexpr uint32_t kFar = 20000, kBatch = 500;
  PlanMaker maker;
  const int32_t in =
      maker.embed("a", maker.weight(exact_weights(kBatch, 4, std::vector<float>(4 * kBatch, 1.0f))));
  const int32_t x = maker.rope("x", in, maker.vector({1.0f, 0.1f}), 1, APR_ROPE_HALVES);
  maker.head();
  maker.linear("logits", x, maker.weight(random_weights(kFloat32, 3, 4, 9)));
  Loaded loaded(maker.plan(), {}, {kFar, 1, kBatch});
  REQUIRE_MESSAGE(loaded.ok(), loaded.error());
  for (uint32_t p = 0; p + kBatch < kFar; p += kBatch)
    REQUIRE(loaded.step(count_up(kBatch, static_cast<int32_t>(p))).status == APR_OK);
  const std::vector<float> got = loaded.taps(count_up(kBatch, kFar - kBatch))["x"];
  REQUIRE(got.size() == 4 * kBatch);
  const double angle = kFar - 1;
  CHECK(got[4 * kBatch - 4] == doctest::Approx(std::cos(angle) - std::sin(angle)).epsilon(1e-6));
  CHECK(got[4 * kBatch - 3] ==
        doctest::Approx(std::cos(0.1f * angle) - std::sin(0.1f * angle)).epsilon(1e-6));
}

TEST_CASE("embed decodes rows of any format") {
  const Packed w = random_weights(kInt48, 50, 96, 5);
  PlanMaker maker;
  const int32_t x = maker.embed("x", maker.weight(w));
  maker.head();
  maker.linear("logits", x, maker.weight(random_weights(kFloat32, 3, 96, 9)));
  Loaded loaded(maker.plan());
  REQUIRE_MESSAGE(loaded.ok(), loaded.error());
  const std::vector<float> got = loaded.taps({{49, 0}, {0, 1}, {17, 2}})["x"];
  REQUIRE(got.size() == 3 * 96);
  size_t at = 0;
  for (const size_t token : {49u, 0u, 17u})
    for (size_t i = 0; i < 96; ++i) REQUIRE(got[at++] == w.dense[token * 96 + i]);
}

TEST_CASE("argmax") {
  // The head is an identity, so that the logits are the rows.
  constexpr uint32_t kWidth = 3000;
  std::vector<float> rows = edgy_rows(8, kWidth, 4), identity(size_t{kWidth} * kWidth);
  for (uint32_t i = 0; i < kWidth; ++i) identity[size_t{i} * kWidth + i] = 1.0f;
  const auto row = [&](uint32_t r) { return rows.data() + r * kWidth; };
  row(0)[2999] = 1e5f;
  row(1)[0] = 1e5f;
  row(2)[1023] = row(2)[1024] = row(2)[2047] = 1e5f;  // the lowest of equals
  std::fill_n(row(3), kWidth, -5.0f);
  std::fill_n(row(4), kWidth, -INFINITY);
  row(5)[1500] = NAN;
  row(6)[77] = INFINITY;
  std::fill_n(row(7), kWidth, -0.0f);
  row(7)[5] = 0.0f;  // equal to -0
  PlanMaker maker;
  const int32_t in = maker.embed("a", maker.weight(exact_weights(8, kWidth, rows)));
  maker.head();
  maker.add("logits", in,
            maker.embed("zero", maker.weight(exact_weights(8, kWidth, std::vector<float>(8 * kWidth)))));
  for (const std::string& isa : instruction_sets()) {
    CAPTURE(isa);
    Loaded loaded(maker.plan(), {isa});
    REQUIRE_MESSAGE(loaded.ok(), loaded.error());
    const Result both = loaded.step(count_up(8), true, true), alone = loaded.step(count_up(8), false, true);
    CHECK(both.argmax == std::vector<int32_t>{2999, 0, 1023, 0, 0, -1, 77, 0});
    CHECK(alone.argmax == both.argmax);
  }
}
