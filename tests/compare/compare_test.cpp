// Differences of known kinds must be called by their names.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <random>
#include <vector>

#include "core/base/error.h"
#include "core/base/thread_pool.h"
#include "core/compare/verdict.h"

using namespace apr;

namespace {

constexpr uint64_t kRows = 96, kCols = 512;

std::vector<float> normal(uint32_t seed, float mean = 0, float deviation = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> draw(mean, deviation);
  std::vector<float> values(kRows * kCols);
  for (float& v : values) v = draw(random);
  return values;
}

Comparison compared(const std::vector<float>& a, const std::vector<float>& b, double bound = 1e-4) {
  ThreadPool pool(2);
  return compare(matrix_of(a.data(), kRows, kCols), matrix_of(b.data(), kRows, kCols), bound, pool);
}

}  // namespace

TEST_CASE("differences are called by their names") {
  const std::vector<float> a = normal(1), noise = normal(2);
  const auto changed = [&](const std::function<float(uint64_t r, uint64_t c)>& value) {
    std::vector<float> b(a.size());
    for (uint64_t i = 0; i < b.size(); ++i) b[i] = value(i / kCols, i % kCols);
    return compared(a, b);
  };
  const auto at = [&](uint64_t r, uint64_t c) { return a[r * kCols + c]; };
  CHECK(compared(a, a).verdict == Verdict::Identical);
  CHECK(changed([&](uint64_t r, uint64_t c) { return at(r, c) + 0.005f * noise[r * kCols + c]; }).verdict ==
        Verdict::Rounding);
  const Comparison scaled = changed([&](uint64_t r, uint64_t c) { return at(r, c) * 0.0625f; });
  CHECK(scaled.verdict == Verdict::Scaled);
  CHECK(scaled.factor == doctest::Approx(0.0625));
  // Far below the bound, and still no rounding.
  CHECK(changed([&](uint64_t r, uint64_t c) { return at(r, c) * 1.0005f; }).verdict == Verdict::Scaled);
  CHECK(describe(changed([&](uint64_t r, uint64_t c) { return -at(r, c); })) == "sign-flipped");
  CHECK(changed([&](uint64_t r, uint64_t c) { return a[c * kRows + r]; }).verdict == Verdict::Transposed);
  CHECK(describe(changed([&](uint64_t r, uint64_t c) { return at((r + kRows - 1) % kRows, c); })) ==
        "shifted by 1 row");
  CHECK(describe(changed([&](uint64_t r, uint64_t c) { return at(r, (c + 32) % kCols); })) ==
        "shifted by -32 columns");
  CHECK(describe(changed([&](uint64_t r, uint64_t c) { return c % 32 == 5 ? -at(r, c) : at(r, c); })) ==
        "different: columns with c % 32 = 5 only");
  CHECK(describe(changed([&](uint64_t r, uint64_t c) { return c >= 500 ? 0 : at(r, c); })) ==
        "different: columns from 500 on only (of 512)");
  CHECK(describe(changed([&](uint64_t r, uint64_t c) { return r == 7 ? 0 : at(r, c); })) ==
        "different: row 7 only (of 96)");
  CHECK(describe(changed([&](uint64_t r, uint64_t c) {
          return r == 3 && c == 9 ? std::nanf("") : at(r, c);
        })) == "not finite: column 9 of 512 only");
  CHECK(compared(a, noise).verdict == Verdict::Different);
}

TEST_CASE("numbers that are nearly alike are not shifted or scaled because they resemble each other") {
  CHECK(compared(normal(3, 1, 0.1f), normal(4, 1, 0.1f)).verdict == Verdict::Different);
}

TEST_CASE("figures, shapes") {
  const float a[4] = {3, 0, 4, 0}, b[4] = {3, 1, 4, 0};
  Measure m;
  m.add(a, b, 2, 0);
  Measure rest;
  rest.add(a + 2, b + 2, 2, 2);
  m.merge(rest);
  CHECK(m.n == 4);
  CHECK(m.n_unequal == 1);
  CHECK(m.nmse() == doctest::Approx(1.0 / 25));
  CHECK(m.rms() == doctest::Approx(0.5));
  CHECK(m.cosine() == doctest::Approx(25 / (5 * std::sqrt(26.0))));
  CHECK(m.max_at == 1);
  ThreadPool pool(1);
  CHECK_THROWS_AS(compare(matrix_of(a, 1, 4), matrix_of(b, 2, 2), 0, pool), Error);
}
