// How far apart two arrays of the same shape are. Sums are kept, so that pieces of a large array can be
// measured on several threads and merged.
#pragma once

#include <cstddef>
#include <cstdint>

namespace apr {

// b against a, element by element. A pair with a NaN or an infinity on either side is counted in not_finite
// (unless both have the same bits) and is in no sum.
struct Measure {
  uint64_t n = 0;           // pairs
  uint64_t n_unequal = 0;   // pairs whose bits differ
  uint64_t not_finite = 0;  // pairs that cannot be subtracted
  double sum_aa = 0, sum_bb = 0, sum_ab = 0;
  double sum_a = 0;
  double sum_dd = 0;    // of (b - a)^2
  double max_abs = 0;   // largest |b - a|
  uint64_t max_at = 0;  // its index; of a pair that is not finite, where there is one
  float max_a = 0, max_b = 0;

  // `first` is the index of a[0] in the whole.
  void add(const float* a, const float* b, size_t n, uint64_t first);
  void merge(const Measure& other);

  bool identical() const { return n_unequal == 0; }
  double cosine() const;    // 1 where both are all zeros
  double rms() const;       // root of the mean squared difference
  double nmse() const;      // sum d^2 / sum a^2; infinity where only a is all zeros
  double scale() const;     // the factor f that brings f * a closest to b; 1 where a is all zeros
  double unscaled() const;  // sum (b - scale * a)^2 / sum b^2: what a constant factor does not explain
};

}  // namespace apr
