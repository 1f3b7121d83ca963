// Fits with scales on two levels: kSubs sub-blocks of kN columns, each with a small integer for its scale (and
// minimum), and a half for the whole superblock that they multiply.
//
// Method: every sub-block's own best fits (fit.hpp) are starts. A start's scales are rounded to integers under
// a half, and whole superblocks are compared by the error that they are decoded with. The best is improved: neighbouring
// integers for each sub-block's scale and minimum, then the halves that fit the result best, in turn.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "apr/fit.hpp"

namespace apr {

namespace fit {

// A factor as a half holds it; never zero for one that is not, so that the integers can still reach what the
// least half cannot divide.
inline float half_factor(float factor) {
  const float half = round_to_half(factor);
  return half == 0.0f && factor != 0.0f ? std::copysign(half_to_float(1), factor) : half;
}

inline float integer_of(float value, float factor, float lo, float hi) {
  return factor != 0.0f ? clamp(std::nearbyint(value / factor), lo, hi) : 0.0f;
}

// The emphasis of a whole superblock, by sub-blocks; false where the weights are all the same.
template <int kSubs, int kN>
bool emphasise_superblock(Emphases emphases, const float* x, const float* weight, float* emphasis) {
  const bool weighted = !all_even<kSubs * kN>(weight);
  float squares = 0.0f;
  for (int i = 0; i < kSubs * kN; ++i) squares += x[i] * x[i];
  for (int s = 0; s < kSubs * kN; s += kN)
    emphasise<kN>(weighted ? emphases.weighted : emphases.even, x + s, weight + s, squares / (kSubs * kN),
                  emphasis + s);
  return weighted;
}

// How far from the end of their range the greatest scale and minimum are tried.
constexpr float kNearby[] = {-1.0f, -0.5f, 0.0f, 0.5f};

// What the columns of each sub-block count.
template <int kSubs, int kN>
void sums_of(const float* emphasis, float* sums) {
  for (int s = 0; s < kSubs; ++s) {
    sums[s] = 0.0f;
    for (int i = 0; i < kN; ++i) sums[s] += emphasis[s * kN + i];
  }
}

// The factor that the scales of the sub-blocks are nearest to multiples of; none of them need be at the end of
// the range.
template <int kSubs>
float fitted_factor(const float* wanted, const float* weight, float peak, float lo, float hi) {
  float q[kSubs];
  Scale best{0.0f, -1.0f};
  const Integers grid{lo, hi};
  const float inverse_peak = inverse_of(peak), end = std::fabs(lo) > hi ? lo : hi;
  for (int step = -grid.kTrialSteps; step <= grid.kTrialSteps; ++step) {
    const float factor = (end + grid.kTrialStep * static_cast<float>(step)) * inverse_peak;
    const Scale solved = solve_scale<kSubs>(wanted, weight, grid, factor, q);
    if (solved.gain > best.gain) best = solved;
  }
  return best.scale;
}

template <int kN>
float weighted_squares(const float* x, const float* weight) {
  float sum = 0.0f;
  for (int i = 0; i < kN; ++i) sum += weight[i] * x[i] * x[i];
  return sum;
}

// The error under which a superblock is one of few different values, or of values that are evenly spaced: a
// twentieth of what rounding to steps of a range of four deviations makes, the range being `levels` steps.
// There the luck of rounding decides, and many more trials are made.
inline float lucky_error(float squares, float levels) { return 0.065f * squares / (levels * levels); }
constexpr int kLuckyTrials = 32;

// The best superblock so far.
template <class Superblock>
class BestOf {
 public:
  BestOf() { best_.error = INFINITY; }

  // Whether this one is it now. Where no error was finite, the last one is.
  bool keep(const Superblock& trial) {
    if (!(trial.error < best_.error) && std::isfinite(best_.error)) return false;
    best_ = trial;
    return true;
  }

  const Superblock& best() const { return best_; }

 private:
  Superblock best_;
};

// ---- scales alone

template <int kSubs, int kN>
struct ScaledSuperblock {
  float d;              // a half's value
  float scale[kSubs];   // integers
  float q[kSubs * kN];  // integers
  float error;
};

// Scales of one sub-block that are worth a try, not rounded.
enum ScaleStart { kOwnScale, kEmphasisedScale, kLowEndScale, kHighEndScale, kScaleStarts };

template <int kN, class Grid>
void scale_starts(const float* x, const float* weight, const float* emphasis, const Grid& grid,
                  float (&starts)[kScaleStarts]) {
  const float peak = peak_of<kN>(x), inverse_peak = inverse_of(peak);
  if (!(std::fabs(peak) > kLeastPeak)) {
    for (float& start : starts) start = 0.0f;
    return;
  }
  float q[kN];
  Scale own{0.0f, -1.0f};
  EmphasisedScale<kN, Grid> emphasised;
  if constexpr (Grid::kMirrored) emphasised.consider_mirrored(x, emphasis, grid, inverse_peak);
  each_end(grid, [&](float end) {
    const BothScales solved = solve_scales<kN, true>(x, weight, emphasis, grid, end * inverse_peak, q);
    if (solved.plain.gain > own.gain) own = solved.plain;
    if (end < 0.0f) emphasised.consider(solved.emphasised);
  });
  for (int i = 0; i < 4; ++i) {
    const Scale solved = solve_scale<kN>(x, weight, grid, inverse_of(own.scale), q);
    if (!(solved.gain > own.gain)) break;
    own = solved;
  }
  starts[kOwnScale] = own.scale, starts[kEmphasisedScale] = emphasised.scale();
  starts[kLowEndScale] = peak / grid.lo, starts[kHighEndScale] = peak / grid.hi;
}

// x ~ (d * scale[s]) * q; scale in scale_lo..scale_hi, q of the grid.
template <int kSubs, int kN, class Grid>
class ScaledSearch : public BestOf<ScaledSuperblock<kSubs, kN>> {
 public:
  using Superblock = ScaledSuperblock<kSubs, kN>;

  ScaledSearch(const float* x, const float* weight, float scale_lo, float scale_hi, const Grid& grid)
      : x_(x), weight_(weight), lo_(scale_lo), hi_(scale_hi), grid_(grid) {}

  // The integers of a start under a factor, and their error under the half that is stored.
  Superblock placed(const float* wanted, float factor) const {
    Superblock trial;
    trial.d = half_factor(factor);
    trial.error = 0.0f;
    for (int s = 0; s < kSubs; ++s) {
      trial.scale[s] = integer_of(wanted[s], factor, lo_, hi_);
      trial.error += round_on<kN>(x_ + s * kN, weight_ + s * kN, trial.d * trial.scale[s], 0.0f, grid_,
                                  trial.q + s * kN);
    }
    return trial;
  }

  // Other scales, as far away as `reach`, then the half that fits best, until it stops helping.
  void improve(Superblock trial, float reach = 1.0f) {
    for (int pass = 0; pass < 3; ++pass) {
      try_scales(trial, reach);
      if (!this->keep(trial) && pass > 0) break;
      const float d = solved(trial);
      if (!(d != trial.d) || !std::isfinite(d)) break;
      trial.d = d;
    }
  }

 private:
  void try_scales(Superblock& trial, float reach) const {
    trial.error = 0.0f;
    for (int s = 0; s < kSubs; ++s) {
      float least = INFINITY, q[kN];
      const auto consider = [&](float scale) {
        if (scale < lo_ || scale > hi_) return;
        const float error = round_on<kN>(x_ + s * kN, weight_ + s * kN, trial.d * scale, 0.0f, grid_, q);
        if (!(error < least)) return;
        least = error;
        trial.scale[s] = scale;
        std::memcpy(trial.q + s * kN, q, sizeof(q));
      };
      const float middle = trial.scale[s];
      consider(middle);
      for (float away = 1.0f; away <= reach; away += 1.0f) consider(middle - away), consider(middle + away);
      trial.error += least;
    }
  }

  float solved(const Superblock& trial) const {
    Float8 xu = {}, uu = {};
    for (int i = 0; i < kSubs * kN; i += 8) {
      Float8 v, w, u;
      load8(x_ + i, v);
      load8(weight_ + i, w);
      load8(trial.q + i, u);
      u = u * trial.scale[i / kN];
      xu += w * u * v;
      uu += w * u * u;
    }
    return total(uu) > 0.0f ? round_to_half(total(xu) / total(uu)) : trial.d;
  }

  const float *x_, *weight_;
  float lo_, hi_;
  Grid grid_;
};

template <int kSubs, int kN, class Grid>
ScaledSuperblock<kSubs, kN> superblock_scales(const float* x, const float* weight, float scale_lo,
                                              float scale_hi, const Grid& grid,
                                              Emphases emphases = {Emphasis::Square, Emphasis::WideRoot}) {
  float emphasis[kSubs * kN], wanted[kScaleStarts][kSubs], peak[kScaleStarts] = {};
  const bool weighted = emphasise_superblock<kSubs, kN>(emphases, x, weight, emphasis);
  for (int s = 0; s < kSubs; ++s) {
    float starts[kScaleStarts];
    scale_starts<kN>(x + s * kN, weight + s * kN, emphasis + s * kN, grid, starts);
    for (int start = 0; start < kScaleStarts; ++start) {
      wanted[start][s] = starts[start];
      if (std::fabs(starts[start]) > std::fabs(peak[start])) peak[start] = starts[start];
    }
  }
  ScaledSearch<kSubs, kN, Grid> search(x, weight, scale_lo, scale_hi, grid);
  // The own start with its greatest scale put at or near either end of the range: of those near the best as they
  // are is improved, and both ends.
  typename ScaledSearch<kSubs, kN, Grid>::Superblock nearby{};
  nearby.error = INFINITY;
  for (const float end : {scale_lo, scale_hi}) {
    for (const float beyond : kNearby) {
      const auto trial = search.placed(wanted[kOwnScale], peak[kOwnScale] / (end + beyond));
      if (trial.error < nearby.error) nearby = trial;
    }
    search.improve(search.placed(wanted[kOwnScale], half_factor(peak[kOwnScale] / end)));
  }
  search.improve(nearby);
  const auto consider = [&](int start, float factor) {
    const auto trial = search.placed(wanted[start], factor);
    if (search.keep(trial)) search.improve(trial);
  };
  for (int start = kEmphasisedScale; start < kScaleStarts; ++start)
    for (const float end : {scale_lo, scale_hi}) consider(start, peak[start] / end);
  if (weighted) {
    float sums[kSubs];
    sums_of<kSubs, kN>(emphasis, sums);
    consider(kEmphasisedScale, fitted_factor<kSubs>(wanted[kEmphasisedScale], sums, peak[kEmphasisedScale],
                                                    scale_lo, scale_hi));
  }
  if (search.best().error < lucky_error(weighted_squares<kSubs * kN>(x, weight), grid.levels())) {
    for (int start = 0; start < kScaleStarts; ++start)
      for (int step = 1; step < kLuckyTrials; ++step)
        for (const float end : {scale_lo + static_cast<float>(step), scale_hi - static_cast<float>(step)})
          if (end != 0.0f) consider(start, peak[start] / end);
    search.improve(search.best(), scale_hi - scale_lo);
  }
  return search.best();
}

}  // namespace fit
}  // namespace apr
