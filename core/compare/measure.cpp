#include "core/compare/measure.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace apr {

void Measure::add(const float* a, const float* b, size_t count, uint64_t first) {
  n += count;
  for (size_t i = 0; i < count; ++i) {
    const bool unequal = std::bit_cast<uint32_t>(a[i]) != std::bit_cast<uint32_t>(b[i]);
    const double x = a[i], y = b[i], d = y - x;
    if (!std::isfinite(d)) {
      if (!unequal) continue;
      ++n_unequal;
      if (not_finite++ == 0)
        max_at = first + i, max_a = a[i], max_b = b[i], max_abs = std::numeric_limits<double>::infinity();
      continue;
    }
    // -0 and 0 are one number.
    n_unequal += unequal && d != 0.0 ? 1 : 0;
    sum_aa += x * x;
    sum_bb += y * y;
    sum_ab += x * y;
    sum_a += x;
    sum_dd += d * d;
    if (std::fabs(d) > max_abs) max_abs = std::fabs(d), max_at = first + i, max_a = a[i], max_b = b[i];
  }
}

void Measure::merge(const Measure& other) {
  if (other.max_abs > max_abs)
    max_abs = other.max_abs, max_at = other.max_at, max_a = other.max_a, max_b = other.max_b;
  n += other.n, n_unequal += other.n_unequal, not_finite += other.not_finite;
  sum_aa += other.sum_aa, sum_bb += other.sum_bb, sum_ab += other.sum_ab, sum_a += other.sum_a,
      sum_dd += other.sum_dd;
}

double Measure::cosine() const {
  if (sum_aa == 0 && sum_bb == 0) return 1;
  const double size = std::sqrt(sum_aa) * std::sqrt(sum_bb);
  return size == 0 ? 0 : std::clamp(sum_ab / size, -1.0, 1.0);
}

double Measure::rms() const {
  return n == not_finite ? 0 : std::sqrt(sum_dd / static_cast<double>(n - not_finite));
}

double Measure::nmse() const {
  if (sum_dd == 0) return 0;
  return sum_aa == 0 ? std::numeric_limits<double>::infinity() : sum_dd / sum_aa;
}

double Measure::scale() const { return sum_aa == 0 ? 1 : sum_ab / sum_aa; }

double Measure::unscaled() const {
  if (sum_bb == 0) return sum_aa == 0 ? 0 : 1;
  const double f = scale();
  return std::max(0.0, sum_bb - 2 * f * sum_ab + f * f * sum_aa) / sum_bb;
}

}  // namespace apr
