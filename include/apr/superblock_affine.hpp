// Fits with scales and minimums on two levels, by the method of superblock.hpp.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "apr/fit_affine.hpp"
#include "apr/superblock.hpp"

namespace apr {

// Eight 6-bit scales and mins to the 12 bytes that ggml's K formats share: low 6 bits of bytes 0-3 and 4-7
// for the first four; for the others the low 4 bits in bytes 8-11 and the high 2 in the top bits of bytes
// 0-7.
inline void pack_scales_and_mins(const float* scales, const float* mins, uint8_t* packed) {
  std::memset(packed, 0, 12);
  for (int s = 0; s < 8; ++s) {
    const int scale = static_cast<int>(scales[s]), min = static_cast<int>(mins[s]);
    if (s < 4) {
      packed[s] = static_cast<uint8_t>(scale);
      packed[4 + s] = static_cast<uint8_t>(min);
    } else {
      packed[s - 4] |= static_cast<uint8_t>((scale >> 4) << 6);
      packed[s] |= static_cast<uint8_t>((min >> 4) << 6);
      packed[4 + s] = static_cast<uint8_t>((scale & 15) | (min & 15) << 4);
    }
  }
}

namespace fit {

// The factor that the scales or minimums of the sub-blocks are nearest to multiples of: begin with the trial that errs
// least as it is; then let each integer in turn be what the others' factor makes it, where that fits better.
template <int kSubs>
float settled_factor(const float* wanted, const float* weight, float peak, float hi) {
  if (!(peak > 0.0f)) return 0.0f;
  float q[kSubs], trial_q[kSubs], least = INFINITY;
  for (const int step : {0, -4, -3, -2, -1, 1, 2, 3, 4}) {
    const float trial = peak / (hi + 0.1f * static_cast<float>(step));
    const float error = round_to<kSubs>(wanted, weight, trial, 0.0f, 0.0f, hi, trial_q);
    if (!(error < least)) continue;
    least = error;
    std::memcpy(q, trial_q, sizeof(q));
  }
  float xq = 0.0f, qq = 0.0f;
  for (int s = 0; s < kSubs; ++s) xq += weight[s] * wanted[s] * q[s], qq += weight[s] * q[s] * q[s];
  bool changed = true;
  for (int round = 0; round < 5 && changed; ++round) {
    changed = false;
    for (int s = 0; s < kSubs; ++s) {
      const float others_xq = xq - weight[s] * wanted[s] * q[s], others_qq = qq - weight[s] * q[s] * q[s];
      if (!(others_xq > 0.0f) || !(others_qq > 0.0f)) continue;
      const float integer = clamp(std::nearbyint(wanted[s] * others_qq / others_xq), 0.0f, hi);
      if (integer == q[s]) continue;
      const float new_xq = others_xq + weight[s] * wanted[s] * integer;
      const float new_qq = others_qq + weight[s] * integer * integer;
      if (!(new_xq * new_xq * qq > xq * xq * new_qq)) continue;
      q[s] = integer, xq = new_xq, qq = new_qq, changed = true;
    }
  }
  return qq > 0.0f ? xq / qq : 0.0f;
}

template <int kSubs, int kN>
struct AffineSuperblock {
  float d, dmin;                   // halves' values
  float scale[kSubs], min[kSubs];  // integers
  float q[kSubs * kN];             // integers
  float error;
};

enum AffineStart { kOwnPair, kEmphasisedPair, kRangePair, kShortRangePair, kAffineStarts };

// Pairs of one sub-block that are worth a try, not rounded; offsets at most 0.
template <int kN>
void affine_starts(const float* x, const float* weight, const float* emphasis, float hi,
                   const AffineTrials& trials, float emphasised_from, Affine (&starts)[kAffineStarts]) {
  const Range range = range_of<kN>(x, 0.0f);
  if (!(range.most > range.least)) {
    for (Affine& start : starts) start = {0.0f, range.least};
    return;
  }
  float rounded[kN];
  Affine own = affine_trial(range, hi);
  starts[kRangePair] = own, starts[kShortRangePair] = affine_trial(range, hi - 1.0f);
  float least = round_to<kN>(x, weight, own.scale, own.offset, 0.0f, hi, rounded);
  const auto consider = [&](Affine pair, const float* q) {
    const float error = error_of<kN>(x, weight, pair.scale, pair.offset, q);
    if (!(error < least)) return false;
    least = error, own = pair;
    return true;
  };
  starts[kEmphasisedPair] =
      try_range<kN>(x, weight, emphasis, range, hi, 0.0f, trials, emphasised_from, consider);
  for (int i = 0; i < 4; ++i) {
    const Affine solved = solve_affine<kN>(x, weight, own, hi, 0.0f, rounded).pair;
    if (!(solved.scale > 0.0f) || !consider(solved, rounded)) break;
  }
  starts[kOwnPair] = own;
}

// x ~ (d * scale[s]) * q - dmin * min[s]; scale in 0..scale_hi, min in 0..min_hi, q in 0..hi.
template <int kSubs, int kN>
class AffineSearch : public BestOf<AffineSuperblock<kSubs, kN>> {
 public:
  using Superblock = AffineSuperblock<kSubs, kN>;

  AffineSearch(const float* x, const float* weight, float scale_hi, float min_hi, float hi)
      : x_(x), weight_(weight), scale_hi_(scale_hi), min_hi_(min_hi), hi_(hi) {}

  Superblock placed(const Affine* wanted, float factor, float min_factor) const {
    Superblock trial;
    trial.d = half_factor(factor), trial.dmin = half_factor(min_factor);
    trial.error = 0.0f;
    for (int s = 0; s < kSubs; ++s) {
      trial.scale[s] = integer_of(wanted[s].scale, factor, 0.0f, scale_hi_);
      trial.min[s] = integer_of(-wanted[s].offset, min_factor, 0.0f, min_hi_);
      trial.error += round_to<kN>(x_ + s * kN, weight_ + s * kN, trial.d * trial.scale[s],
                                  -(trial.dmin * trial.min[s]), 0.0f, hi_, trial.q + s * kN);
    }
    return trial;
  }

  // Neighbouring scales and minimums, and scales as far away as `reach`; then the halves that fit best.
  void improve(Superblock trial, float reach = 1.0f) {
    for (int pass = 0; pass < 3; ++pass) {
      try_pairs(trial, reach);
      if (!this->keep(trial) && pass > 0) break;
      if (!solve(trial)) break;
    }
  }

 private:
  void try_pairs(Superblock& trial, float reach) const {
    trial.error = 0.0f;
    for (int s = 0; s < kSubs; ++s) {
      const float middle_scale = trial.scale[s], middle_min = trial.min[s];
      float least = INFINITY, q[kN];
      const auto consider = [&](float scale, float min) {
        if (scale < 0.0f || scale > scale_hi_ || min < 0.0f || min > min_hi_) return;
        const float error =
            round_to<kN>(x_ + s * kN, weight_ + s * kN, trial.d * scale, -(trial.dmin * min), 0.0f, hi_, q);
        if (!(error < least)) return;
        least = error;
        trial.scale[s] = scale, trial.min[s] = min;
        std::memcpy(trial.q + s * kN, q, sizeof(q));
      };
      for (const float ds : {0.0f, -1.0f, 1.0f})
        for (const float dm : {0.0f, -1.0f, 1.0f}) consider(middle_scale + ds, middle_min + dm);
      for (float away = 2.0f; away <= reach; away += 1.0f)
        for (const float scale : {middle_scale - away, middle_scale + away})
          for (const float min : {middle_min, 0.0f}) consider(scale, min);
      // Where d or dmin is among the least halves the wanted pair can be far from any that there is.
      consider(middle_scale, 0.0f);
      consider(0.0f, 0.0f);
      trial.error += least;
    }
  }

  // The pair (d, dmin) that fits these integers best; false where there is none, or it is the same.
  bool solve(Superblock& trial) const {
    Float8 xu = {}, xv = {}, uu = {}, uv = {}, vv = {};
    for (int i = 0; i < kSubs * kN; i += 8) {
      const float v = -trial.min[i / kN];
      Float8 y, w, u;
      load8(x_ + i, y);
      load8(weight_ + i, w);
      load8(trial.q + i, u);
      u = u * trial.scale[i / kN];
      xu += w * u * y;
      xv += w * v * y;
      uu += w * u * u;
      uv += w * u * v;
      vv += w * v * v;
    }
    const double a = total(uu), b = total(uv), c = total(vv), e = total(xu), f = total(xv);
    const double determinant = a * c - b * b;
    const float d = trial.d, dmin = trial.dmin;
    if (determinant > 1e-9 * a * c && a > 0.0 && c > 0.0) {
      trial.d = round_to_half(static_cast<float>((e * c - f * b) / determinant));
      trial.dmin = round_to_half(static_cast<float>((a * f - b * e) / determinant));
    } else if (a > 0.0) {
      trial.d = round_to_half(static_cast<float>((e - b * static_cast<double>(trial.dmin)) / a));
    }
    return trial.d >= 0.0f && trial.dmin >= 0.0f && (trial.d != d || trial.dmin != dmin);
  }

  const float *x_, *weight_;
  float scale_hi_, min_hi_, hi_;
};

template <int kSubs, int kN>
AffineSuperblock<kSubs, kN> superblock_affine(const float* x, const float* weight, float scale_hi,
                                              float min_hi, float hi,
                                              Emphases emphases = {Emphasis::Size, Emphasis::WideRoot}) {
  float emphasis[kSubs * kN];
  const bool weighted = emphasise_superblock<kSubs, kN>(emphases, x, weight, emphasis);
  Affine wanted[kAffineStarts][kSubs];
  float scale_peak[kAffineStarts] = {}, min_peak[kAffineStarts] = {};
  for (int s = 0; s < kSubs; ++s) {
    Affine starts[kAffineStarts];
    affine_starts<kN>(x + s * kN, weight + s * kN, emphasis + s * kN, hi,
                      weighted ? kWeightedTrials : kEvenTrials, weighted || hi == 15.0f ? -2.0f : -0.55f,
                      starts);
    for (int start = 0; start < kAffineStarts; ++start) {
      wanted[start][s] = starts[start];
      scale_peak[start] = std::fmax(scale_peak[start], starts[start].scale);
      min_peak[start] = std::fmax(min_peak[start], -starts[start].offset);
    }
  }
  AffineSearch<kSubs, kN> search(x, weight, scale_hi, min_hi, hi);
  const auto consider = [&](int start, float factor, float min_factor) {
    const auto trial = search.placed(wanted[start], factor, min_factor);
    if (search.keep(trial)) search.improve(trial);
  };
  // The own start with its greatest scale and minimum put at or near the ends of their ranges: of those the best
  // as they are is improved, and the first.
  typename AffineSearch<kSubs, kN>::Superblock nearby{};
  nearby.error = INFINITY;
  for (const float beyond : kNearby)
    for (const float min_beyond : kNearby) {
      const auto trial = search.placed(wanted[kOwnPair], scale_peak[kOwnPair] / (scale_hi + beyond),
                                       min_peak[kOwnPair] / (min_hi + min_beyond));
      if (trial.error < nearby.error) nearby = trial;
    }
  search.improve(search.placed(wanted[kOwnPair], half_factor(scale_peak[kOwnPair] / scale_hi),
                               half_factor(min_peak[kOwnPair] / min_hi)));
  search.improve(nearby);
  for (int start = kEmphasisedPair; start < kAffineStarts; ++start)
    consider(start, scale_peak[start] / scale_hi, min_peak[start] / min_hi);
  if (weighted) {
    float scales[kSubs], mins[kSubs], sums[kSubs];
    sums_of<kSubs, kN>(emphasis, sums);
    for (int s = 0; s < kSubs; ++s) {
      scales[s] = wanted[kEmphasisedPair][s].scale;
      mins[s] = -wanted[kEmphasisedPair][s].offset;
    }
    consider(kEmphasisedPair, settled_factor<kSubs>(scales, sums, scale_peak[kEmphasisedPair], scale_hi),
             settled_factor<kSubs>(mins, sums, min_peak[kEmphasisedPair], min_hi));
  }
  if (search.best().error < lucky_error(weighted_squares<kSubs * kN>(x, weight), hi)) {
    for (int start = 0; start < kAffineStarts; ++start)
      for (int step = 0; step < kLuckyTrials && static_cast<float>(step) < scale_hi; ++step)
        for (int min_step = 0; min_step < kLuckyTrials && static_cast<float>(min_step) < min_hi;
             min_step += 3)
          consider(start, scale_peak[start] / (scale_hi - static_cast<float>(step)),
                   min_peak[start] / (min_hi - static_cast<float>(min_step)));
    search.improve(search.best(), scale_hi);
  }
  return search.best();
}

}  // namespace fit
}  // namespace apr
