#include "tools/quantisers/rows.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>

namespace apr::compare {
namespace {

constexpr double kDeviation = 0.02;  // of a linear layer's weights
constexpr double kTau = 6.283185307179586;

template <typename Make>
void each(float* x, Make make) {
  for (size_t i = 0; i < kSuperblock; ++i) x[i] = static_cast<float>(make(i));
}

void normal(Numbers& r, float* x) {
  each(x, [&](size_t) { return kDeviation * r.normal(); });
}
void uniform(Numbers& r, float* x) {
  each(x, [&](size_t) { return r.between(-0.05, 0.05); });
}
void laplace(Numbers& r, float* x) {
  each(x, [&](size_t) {
    const double size = -kDeviation * std::log(r.uniform());
    return r.uniform() < 0.5 ? -size : size;
  });
}
void student(Numbers& r, float* x) {
  each(x, [&](size_t) {
    const double a = r.normal(), b = r.normal(), c = r.normal();
    return kDeviation * r.normal() / std::sqrt((a * a + b * b + c * c) / 3.0 + 1e-9);
  });
}
void sparse(Numbers& r, float* x) {
  const double density = r.between(0.02, 0.6);
  each(x, [&](size_t) { return r.uniform() < density ? kDeviation * r.normal() : 0.0; });
}
void few(Numbers& r, float* x) {
  each(x, [](size_t) { return 0.0; });
  for (size_t n = 1 + r.below(8); n > 0; --n)
    x[r.below(kSuperblock)] = static_cast<float>(kDeviation * r.normal());
}
void outlier(Numbers& r, float* x) {
  normal(r, x);
  x[r.below(kSuperblock)] = static_cast<float>((r.uniform() < 0.5 ? -1.0 : 1.0) * r.between(0.1, 4.0));
}
void outliers(Numbers& r, float* x) {
  normal(r, x);
  for (size_t i = r.below(32); i < kSuperblock; i += 32) x[i] *= static_cast<float>(r.between(3.0, 40.0));
}
void constant(Numbers& r, float* x) {
  const double value = kDeviation * r.normal();
  each(x, [&](size_t) { return value; });
}
void constant_runs(Numbers& r, float* x) {
  double value = 0;
  each(x, [&](size_t i) { return i % 32 == 0 ? value = kDeviation * r.normal() : value; });
}
void two_values(Numbers& r, float* x) {
  const double a = kDeviation * r.normal(), b = r.uniform() < 0.5 ? -a : kDeviation * r.normal();
  each(x, [&](size_t) { return r.uniform() < 0.5 ? a : b; });
}
void ternary(Numbers& r, float* x) {
  const double size = kDeviation * r.between(0.1, 2.0);
  each(x, [&](size_t) { return size * (static_cast<double>(r.below(3)) - 1.0); });
}
void shifted(Numbers& r, float* x) {
  const double mean = r.normal();
  each(x, [&](size_t) { return kDeviation * (mean + 0.3 * r.normal()); });
}
void one_sided(Numbers& r, float* x) {
  const double sign = r.uniform() < 0.5 ? -kDeviation : kDeviation;
  each(x, [&](size_t) { return sign * std::fabs(r.normal()); });
}
void ramp(Numbers& r, float* x) {
  const double from = kDeviation * r.normal(), to = kDeviation * r.normal();
  each(x, [&](size_t i) { return from + (to - from) * static_cast<double>(i) / (kSuperblock - 1); });
}
void magnitudes(Numbers& r, float* x) {
  double size = 1;
  each(x, [&](size_t i) {
    if (i % 16 == 0) size = std::exp(r.between(-4.0, 2.0));
    return kDeviation * size * r.normal();
  });
}
void integers(Numbers& r, float* x) {
  const double step = 1.0 / 1024;
  each(x, [&](size_t) { return step * (static_cast<double>(r.below(15)) - 7.0); });
}
void tiny(Numbers& r, float* x) {
  const double size = std::exp(r.between(-16.0, -9.0));
  each(x, [&](size_t) { return size * r.normal(); });
}
void vanishing(Numbers& r, float* x) {
  const double size = std::exp(r.between(-40.0, -16.0));
  each(x, [&](size_t) { return size * r.normal(); });
}
void huge(Numbers& r, float* x) {
  const double size = std::exp(r.between(0.0, 9.0));
  each(x, [&](size_t) { return size * r.normal(); });
}
void zeros(Numbers&, float* x) {
  each(x, [](size_t) { return 0.0; });
}

}  // namespace

uint64_t Numbers::bits() {
  uint64_t z = state_ += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

double Numbers::uniform() { return (static_cast<double>(bits() >> 12) + 0.5) * 0x1p-52; }

double Numbers::normal() {
  const double size = std::sqrt(-2.0 * std::log(uniform()));
  return size * std::cos(kTau * uniform());
}

const std::vector<Distribution>& distributions() {
  static const std::vector<Distribution> all = {
      {"normal", "normal, deviation 0.02", normal},
      {"uniform", "uniform in +-0.05", uniform},
      {"laplace", "two-sided exponential", laplace},
      {"student", "Student's t with 3 degrees of freedom: heavy tails", student},
      {"sparse", "2% to 60% normal, the others exactly zero", sparse},
      {"few", "1 to 8 weights of 256 are not zero", few},
      {"outlier", "normal, one weight 5 to 200 deviations out", outlier},
      {"outliers", "normal, one of 32 weights 3 to 40 times as large", outliers},
      {"constant", "one value", constant},
      {"constant-32", "one value in 32 columns each", constant_runs},
      {"two-values", "two values", two_values},
      {"ternary", "-c, 0 and c", ternary},
      {"shifted", "normal around a mean that is not zero", shifted},
      {"one-sided", "all of one sign", one_sided},
      {"ramp", "evenly from one value to another", ramp},
      {"magnitudes", "normal, 16 columns each with a size of their own", magnitudes},
      {"integers", "multiples of 1/1024 in +-7/1024", integers},
      {"tiny", "normal of 1e-7 to 1e-4", tiny},
      {"vanishing", "normal of 1e-17 to 1e-7: at and below the least half", vanishing},
      {"huge", "normal of 1 to 8000", huge},
      {"zeros", "zeros", zeros},
  };
  return all;
}

std::vector<float> make_blocks(const Distribution& distribution, size_t n, uint64_t seed) {
  Numbers numbers(seed);
  std::vector<float> x(n * kSuperblock);
  for (size_t b = 0; b < n; ++b) distribution.fill(numbers, x.data() + b * kSuperblock);
  return x;
}

std::vector<float> make_importance(size_t k, uint64_t seed) {
  Numbers numbers(seed);
  std::vector<float> importance(k);
  for (float& v : importance) {
    v = static_cast<float>(std::exp(1.2 * numbers.normal()));
    if (numbers.below(64) == 0) v = 1e-5f;
  }
  return importance;
}

std::string fingerprint(const std::vector<float>& values) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const float v : values) {
    uint32_t word;
    std::memcpy(&word, &v, 4);
    for (int i = 0; i < 32; i += 8) hash = (hash ^ (word >> i & 255u)) * 0x100000001b3u;
  }
  return fmt::format("{:016x}", hash);
}

}  // namespace apr::compare
