// Weighted least-squares fits of a scale and an offset to one block of weights, by the method of fit.hpp.
#pragma once

#include <cmath>
#include <cstdint>

#include "apr/fit.hpp"

namespace apr::fit {

// x ~ scale * q + offset.
struct Affine {
  float scale, offset;
  bool operator==(const Affine&) const = default;
};

// A pair, and by how much it lessens the error against zeros.
struct AffineFit {
  Affine pair;
  double gain;
};

// The sums that a fit of both needs.
struct AffineSums {
  Float8 w = {}, x = {}, q = {}, xq = {}, qq = {};
  APR_FN void add(const Float8& v, const Float8& weight, const Float8& integer) {
    const Float8 wq = weight * integer;
    w += weight, x += weight * v, q += wq;
    xq += wq * v, qq += wq * integer;
  }
  // The best scale and offset; the offset at most `highest`.
  AffineFit solve(float highest) const {
    const double sw = total(w), sx = total(x), sq = total(q), sxq = total(xq), sqq = total(qq);
    const double determinant = sw * sqq - sq * sq;
    double scale = 0.0, offset = sw > 0.0 ? sx / sw : 0.0;
    if (determinant > 0.0) {
      scale = (sw * sxq - sx * sq) / determinant;
      offset = (sqq * sx - sq * sxq) / determinant;
    }
    if (offset > double{highest}) {
      offset = highest;
      scale = sqq > 0.0 ? (sxq - offset * sq) / sqq : 0.0;
    }
    return {{static_cast<float>(scale), static_cast<float>(offset)},
            scale * (2.0 * sxq - scale * sqq - 2.0 * offset * sq) + offset * (2.0 * sx - offset * sw)};
  }
};

// Rounds under a trial, and solves under both weights, the emphasised with an offset of at most 0.
struct BothAffine {
  AffineFit plain, emphasised;
};
template <int kN, bool kEmphasised>
BothAffine solve_both(const float* x, const float* weight, const float* emphasis, Affine trial, float hi,
                      float highest, float* q) {
  const float factor = inverse_of(trial.scale);
  const Integers grid{0.0f, hi};
  AffineSums plain, emphasised;
  for (int i = 0; i < kN; i += 8) {
    Float8 v, w;
    load8(x + i, v);
    load8(weight + i, w);
    Float8 value = (v - trial.offset) * factor;
    grid.nearest(value);
    store8(q + i, value);
    plain.add(v, w, value);
    if constexpr (kEmphasised) {
      Float8 e;
      load8(emphasis + i, e);
      emphasised.add(v, e, value);
    }
  }
  BothAffine both{plain.solve(highest), {}};
  if constexpr (kEmphasised) both.emphasised = emphasised.solve(0.0f);
  return both;
}
template <int kN>
AffineFit solve_affine(const float* x, const float* weight, Affine trial, float hi, float highest, float* q) {
  return solve_both<kN, false>(x, weight, nullptr, trial, hi, highest, q).plain;
}

// The least and the greatest weight; the least at most `highest`.
struct Range {
  float least, most;
};
template <int kN>
Range range_of(const float* x, float highest) {
  Range range{x[0], x[0]};
  for (int i = 1; i < kN; ++i) {
    range.least = x[i] < range.least ? x[i] : range.least;
    range.most = x[i] > range.most ? x[i] : range.most;
  }
  if (range.least > highest) range.least = highest;
  return range;
}

// Trial scales spread a range over 0..hi + first, 0..hi + first + step, ...
struct AffineTrials {
  float first, step;
  int n;
};
constexpr AffineTrials kEvenTrials{-1.0f, 0.1f, 21}, kWeightedTrials{-0.9f, 0.05f, 37};
inline Affine affine_trial(Range range, float top) { return {(range.most - range.least) / top, range.least}; }

// Calls visit(pair, q) with solutions under the plain weights and their integers, and returns the best under the
// emphasis, of the trials beyond `emphasised_from`. Where that is better than those before it, later trials begin
// at its offset: it has left the least weight.
template <int kN, class Visit>
Affine try_range(const float* x, const float* weight, const float* emphasis, Range range, float hi,
                 float highest, const AffineTrials& trials, float emphasised_from, Visit visit) {
  float q[kN], squares = 0.0f;
  for (int i = 0; i < kN; ++i) squares += weight[i] * x[i] * x[i];
  Affine emphasised = affine_trial(range, hi);
  float emphasised_error = round_to<kN>(x, emphasis, emphasised.scale, emphasised.offset, 0.0f, hi, q);
  double most = 0.0;
  for (int i = 0; i < trials.n; ++i) {
    const float beyond = trials.first + trials.step * static_cast<float>(i);
    const BothAffine solved =
        solve_both<kN, true>(x, weight, emphasis, affine_trial(range, hi + beyond), hi, highest, q);
    if (beyond > emphasised_from) {
      const Affine pair = solved.emphasised.pair;
      const float error = error_of<kN>(x, emphasis, pair.scale, pair.offset, q);
      if (error < emphasised_error) emphasised_error = error, emphasised = pair, range.least = pair.offset;
    }
    // A gain far below the greatest so far is not worth a look; the sums are exact to 1e-7 or so.
    const double noise = 1e-6 * double{squares};
    const double left = double{squares} - solved.plain.gain;
    if (left > 1.3 * (double{squares} - most) + noise) continue;
    most = std::fmax(most, solved.plain.gain);
    if (!(solved.plain.pair.scale > 0.0f)) continue;
    visit(solved.plain.pair, q);
    // Once more from there, if it is one of the best.
    if (left > 1.1 * (double{squares} - most) + noise) continue;
    const AffineFit again = solve_affine<kN>(x, weight, solved.plain.pair, hi, highest, q);
    most = std::fmax(most, again.gain);
    if (again.pair.scale > 0.0f) visit(again.pair, q);
  }
  return emphasised;
}

inline Affine round_to_halves(Affine pair) { return {round_to_half(pair.scale), round_to_half(pair.offset)}; }

// x ~ scale * q + offset, q in 0..hi, scale >= 0, offset <= highest: the best pair among those that halves hold.
template <int kN>
Affine scale_and_offset(const float* x, const float* weight, float hi, float highest,
                        Emphases emphases = {Emphasis::Size, Emphasis::Root}) {
  const bool weighted = !all_even<kN>(weight);
  float emphasis[kN], rounded[kN];
  emphasise<kN>(weighted ? emphases.weighted : emphases.even, x, weight, 0.0f, emphasis);
  Affine best{0.0f, round_to_half(range_of<kN>(x, highest).least)};
  float least = round_to<kN>(x, weight, best.scale, best.offset, 0.0f, hi, rounded);
  const auto consider = [&](Affine pair) {
    if (!(pair.scale >= 0.0f) || pair.offset > highest) return false;
    const float error = round_to<kN>(x, weight, pair.scale, pair.offset, 0.0f, hi, rounded);
    if (!(error < least) && std::isfinite(least)) return false;
    least = error, best = pair;
    return true;
  };
  // From the range of the weights, and where they are all positive from the one that reaches down to zero.
  for (const float floor : {highest, 0.0f}) {
    const Range range = range_of<kN>(x, floor);
    if (!(range.most > range.least)) continue;
    if (floor != highest && !(range_of<kN>(x, highest).least > 0.0f)) continue;
    consider(round_to_halves(affine_trial(range, hi)));
    const Affine emphasised =
        try_range<kN>(x, weight, emphasis, range, hi, floor, weighted ? kWeightedTrials : kEvenTrials, -2.0f,
                      [&](Affine pair, const float* q) {
                        const Affine stored = round_to_halves(pair);
                        if (!(error_of<kN>(x, weight, stored.scale, stored.offset, q) >= least))
                          consider(stored);
                      });
    consider(round_to_halves(emphasised));
  }
  for (int i = 0; i < 4; ++i) {
    const AffineFit solved = solve_affine<kN>(x, weight, best, hi, highest, rounded);
    if (!consider(round_to_halves(solved.pair))) break;
  }
  // One half rounded the other way can make up for the other.
  const int scale = float_to_half(best.scale), offset = float_to_half(best.offset);
  for (const int ds : {-1, 0, 1})
    for (const int dm : {-1, 0, 1})
      if ((ds != 0 || dm != 0) && scale + ds >= 0)
        consider({half_to_float(static_cast<uint16_t>(scale + ds)),
                  half_to_float(static_cast<uint16_t>(offset + dm))});
  return best;
}

}  // namespace apr::fit
