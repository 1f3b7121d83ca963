// Weighted least-squares fits of a scale, or of a scale and an offset, to one block of weights. The error that
// everything here minimises is  sum of weight[i] * (x[i] - w[i])^2,  w[i] as the block decodes.
//
// Method: for many trial scales round the block to integers, solve for the scale (and offset) that fits those
// integers best, and judge by the error that is left when the solution is rounded to what a block stores: in a
// block of few different values it is the rounding to a half that decides. At the end rounding and solving
// alternate until they stop helping.
//
// A second opinion: the same trials are also solved under other weights, the *emphasis*, which lets large
// weights count more. It ends in other local optima; they are candidates like any other. With it the starts
// include those of ggml's searches (make_qx_quants, make_qkx2_quants and make_qkx3_quants, described in own
// words here), so that a block is no worse than what they find.
#pragma once

#include <cmath>
#include <cstdint>
#include <initializer_list>

#include "apr/codec.h"
#include "apr/small_floats.hpp"

namespace apr::fit {

// Eight floats, as the compiler's own vector type: one register with AVX2, two without. Sums run in eight
// lanes, so the bytes that a quantiser writes do not depend on the instruction set that it was compiled for.
typedef float Float8 __attribute__((vector_size(32)));

APR_FN void load8(const float* p, Float8& v) { __builtin_memcpy(&v, p, sizeof(v)); }
APR_FN void store8(float* p, const Float8& v) { __builtin_memcpy(p, &v, sizeof(v)); }
typedef float Float4 __attribute__((vector_size(16)));
APR_FN float total(const Float8& v) {
  const Float4 fours = __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
  const Float4 pairs = fours + __builtin_shufflevector(fours, fours, 1, 0, 3, 2);
  return pairs[0] + pairs[2];
}

inline float clamp(float f, float lo, float hi) {
  f = f > lo ? f : lo;  // in this order NaN becomes lo, and stays an integer when it is converted
  return f < hi ? f : hi;
}

// 1 / scale; 0 for 0. A scale among the least subnormals has no finite inverse: then every column is at an
// end of the range.
inline float inverse_of(float scale) {
  const float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
  return std::isfinite(inverse) ? inverse : std::copysign(3.0e38f, scale);
}

// ---- what q may be

template <int kN, class Grid>
float round_on(const float* x, const float* weight, float scale, float offset, const Grid& grid, float* q);

// The integers lo..hi.
struct Integers {
  float lo, hi;
  // Trial scales make the greatest weight an end, plus or minus so many steps.
  static constexpr int kTrialSteps = 9;
  static constexpr float kTrialStep = 0.1f;
  static constexpr bool kMirrored = false;
  float levels() const { return hi - lo; }
  APR_FN void nearest(Float8& value) const {
    const Float8 least = lo - Float8{}, most = hi - Float8{};
    value = value > least ? value : least;
    value = value < most ? value : most;
    // Nearest integer, ties to even: the sum leaves no fraction bits.
    value = (value + 12582912.0f) - 12582912.0f;
  }
  template <int kN>
  float round(const float* x, const float* weight, float scale, float* q) const {
    return round_on<kN>(x, weight, scale, 0.0f, *this, q);
  }
};

// Any values, ascending, on both sides of zero; the ends are to be some hundred, as of signed bytes.
template <int kSize>
struct Table {
  float value[kSize];
  float lo = value[0], hi = value[kSize - 1];
  static constexpr int kTrialSteps = 7;
  static constexpr float kTrialStep = 1.0f;
  static constexpr bool kMirrored = true;  // -lo is no value of it, but a trial
  float levels() const { return static_cast<float>(kSize - 1); }
  APR_FN void nearest(Float8& wanted) const {
    Float8 near = value[0] - Float8{};
    for (int t = 1; t < kSize; ++t) {
      const Float8 next = value[t] - Float8{}, middle = 0.5f * (value[t - 1] + value[t]) - Float8{};
      near = wanted > middle ? next : near;
    }
    wanted = near;
  }
  template <int kN>
  float round(const float* x, const float* weight, float scale, float* q) const {
    return round_on<kN>(x, weight, scale, 0.0f, *this, q);
  }
};

// Rounds x to scale * q + offset with q of the grid; the weighted squared error. The grids' round() is this without
// an offset.
template <int kN, class Grid>
float round_on(const float* x, const float* weight, float scale, float offset, const Grid& grid, float* q) {
  const float factor = inverse_of(scale);
  Float8 error = {};
  for (int i = 0; i < kN; i += 8) {
    Float8 v, w;
    load8(x + i, v);
    load8(weight + i, w);
    Float8 value = (v - offset) * factor;
    grid.nearest(value);
    store8(q + i, value);
    const Float8 miss = v - (value * scale + offset);
    error += w * miss * miss;
  }
  return total(error);
}
// The same with q in lo..hi.
template <int kN>
float round_to(const float* x, const float* weight, float scale, float offset, float lo, float hi, float* q) {
  return round_on<kN>(x, weight, scale, offset, Integers{lo, hi}, q);
}

// The weighted squared error of given integers.
template <int kN>
float error_of(const float* x, const float* weight, float scale, float offset, const float* q) {
  Float8 error = {};
  for (int i = 0; i < kN; i += 8) {
    Float8 v, w, value;
    load8(x + i, v);
    load8(weight + i, w);
    load8(q + i, value);
    const Float8 miss = v - (value * scale + offset);
    error += w * miss * miss;
  }
  return total(error);
}

// ---- the second opinion

// How much more a column counts in it, a multiple of its weight.
enum class Emphasis {
  None,       // 1
  Magnitude,  // |x|
  Square,     // x^2
  Size,       // the block's root mean square + |x|
  Root,       // the root of (the mean square of all that is quantised at once + x^2)
  WideRoot,   // the root of (twice that mean square + x^2)
};
// Without importance all columns have the same weight; then another emphasis may serve.
struct Emphases {
  Emphasis even, weighted;
};

// kN columns; a mean square of 0 stands for the columns' own.
template <int kN>
void emphasise(Emphasis kind, const float* x, const float* weight, float mean_square, float* emphasis) {
  Float8 squares = {};
  for (int i = 0; i < kN; i += 8) {
    Float8 v;
    load8(x + i, v);
    squares += v * v;
  }
  const float own = total(squares) / static_cast<float>(kN), root = std::sqrt(own);
  if (!(mean_square > 0.0f)) mean_square = own;
  for (int i = 0; i < kN; ++i) {
    float factor = 1.0f;
    switch (kind) {
      case Emphasis::None:
        break;
      case Emphasis::Magnitude:
        factor = std::fabs(x[i]);
        break;
      case Emphasis::Square:
        factor = x[i] * x[i];
        break;
      case Emphasis::Size:
        factor = root + std::fabs(x[i]);
        break;
      case Emphasis::Root:
        factor = std::sqrt(mean_square + x[i] * x[i]);
        break;
      case Emphasis::WideRoot:
        factor = std::sqrt(2.0f * mean_square + x[i] * x[i]);
        break;
    }
    emphasis[i] = weight[i] * factor;
  }
}

template <int kN>
bool all_even(const float* weight) {
  Float8 first = weight[0] - Float8{}, differs = {};
  for (int i = 0; i < kN; i += 8) {
    Float8 w;
    load8(weight + i, w);
    const Float8 difference = w - first;
    differs += difference * difference;
  }
  return total(differs) == 0.0f;
}

// ---- a scale alone

// The scale that fits x ~ scale * q best, and by how much it lessens the error against scale = 0.
struct Scale {
  float scale, gain;
};
inline Scale scale_of(float xq, float qq) {
  return qq > 0.0f ? Scale{xq / qq, xq / qq * xq} : Scale{0.0f, 0.0f};
}

// Rounds x * factor, and solves under both weights; without an emphasis (null) under the first.
struct BothScales {
  Scale plain, emphasised;
};
template <int kN, bool kEmphasised, class Grid>
BothScales solve_scales(const float* x, const float* weight, const float* emphasis, const Grid& grid,
                        float factor, float* q) {
  Float8 xq = {}, qq = {}, exq = {}, eqq = {};
  for (int i = 0; i < kN; i += 8) {
    Float8 v, w;
    load8(x + i, v);
    load8(weight + i, w);
    Float8 value = v * factor;
    grid.nearest(value);
    store8(q + i, value);
    const Float8 wq = w * value;
    xq += wq * v, qq += wq * value;
    if constexpr (kEmphasised) {
      Float8 e;
      load8(emphasis + i, e);
      const Float8 eq = e * value;
      exq += eq * v, eqq += eq * value;
    }
  }
  BothScales both{scale_of(total(xq), total(qq)), {}};
  if constexpr (kEmphasised) both.emphasised = scale_of(total(exq), total(eqq));
  return both;
}
template <int kN, class Grid>
Scale solve_scale(const float* x, const float* weight, const Grid& grid, float factor, float* q) {
  return solve_scales<kN, false>(x, weight, nullptr, grid, factor, q).plain;
}

// The weight of greatest magnitude, with its sign.
template <int kN>
float peak_of(const float* x) {
  float peak = 0.0f;
  for (int i = 0; i < kN; ++i)
    if (std::fabs(x[i]) > std::fabs(peak)) peak = x[i];
  return peak;
}
// What is less counts as zero.
constexpr float kLeastPeak = 1e-30f;

// Calls visit(end) with where the peak is to be put: at either end of the grid, a little beyond or short of it.
// The largest weight may be the most negative integer or the most positive one; either way the scale that
// spreads it a little beyond or short of the end can serve the others better.
template <class Grid, class Visit>
void each_end(const Grid& grid, Visit visit) {
  for (const float end : {grid.lo, grid.hi})
    for (int step = -Grid::kTrialSteps; step <= Grid::kTrialSteps; ++step)
      visit(end + Grid::kTrialStep * static_cast<float>(step));
}

// The best scale by gain under the emphasis, and those that differ from it by no more than the sums' rounding.
// From below zero alone: so ggml's searches go.
template <int kN, class Grid>
class EmphasisedScale {
 public:
  void consider(const Scale& solved) {
    if (solved.gain < (1.0f - 2e-6f) * most_) return;
    if (solved.gain > (1.0f + 2e-6f) * most_) n_ = 0;
    if (n_ == kMost) return;
    if (solved.gain > most_) most_ = solved.gain;
    scale_[n_++] = solved.scale;
  }
  // What else they try: a table's greatest magnitude with the other sign.
  void consider_mirrored(const float* x, const float* emphasis, const Grid& grid, float inverse_peak) {
    float q[kN];
    consider(solve_scale<kN>(x, emphasis, grid, -grid.lo * inverse_peak, q));
  }
  float scale() const { return n_ > 0 ? scale_[0] : 0.0f; }
  template <class Visit>
  void each(Visit visit) const {
    for (int i = 0; i < n_; ++i) visit(scale_[i]);
  }

 private:
  static constexpr int kMost = 8;
  float most_ = 0.0f, scale_[kMost];
  int n_ = 0;
};

template <int kN, bool kEmphasised, class Grid>
float best_half_scale(const float* x, const float* weight, const float* emphasis, const Grid& grid,
                      float peak) {
  const float inverse_peak = inverse_of(peak);
  float q[kN], solved_for[kN];
  float best = round_to_half(peak / (std::fabs(grid.lo) > grid.hi ? grid.lo : grid.hi));
  float least = round_on<kN>(x, weight, best, 0.0f, grid, q);
  const auto consider = [&](float scale) {
    const float error = round_on<kN>(x, weight, scale, 0.0f, grid, q);
    if (!(error < least) && std::isfinite(least)) return false;
    least = error, best = scale;
    return true;
  };
  for (const float end : {grid.lo, grid.hi}) consider(round_to_half(peak / end));
  // A gain so far below the greatest is no matter of rounding to a half: that costs 2^-24 of it.
  float squares = 0.0f, enough = 0.0f;
  for (int i = 0; i < kN; ++i) squares += weight[i] * x[i] * x[i];
  EmphasisedScale<kN, Grid> emphasised;
  if constexpr (kEmphasised && Grid::kMirrored) emphasised.consider_mirrored(x, emphasis, grid, inverse_peak);
  each_end(grid, [&](float end) {
    const BothScales solved =
        solve_scales<kN, kEmphasised>(x, weight, emphasis, grid, end * inverse_peak, solved_for);
    if constexpr (kEmphasised)
      if (end < 0.0f) emphasised.consider(solved.emphasised);
    const float gain = solved.plain.gain - 1e-6f * squares;
    if (solved.plain.gain < enough) return;
    enough = gain > enough ? gain : enough;
    const float scale = round_to_half(solved.plain.scale);
    if (!(error_of<kN>(x, weight, scale, 0.0f, solved_for) >= least)) consider(scale);
  });
  emphasised.each([&](float scale) { consider(round_to_half(scale)); });
  for (int i = 0; i < 4; ++i) {
    const Scale solved = solve_scale<kN>(x, weight, grid, inverse_of(best), solved_for);
    if (!consider(round_to_half(solved.scale))) break;
  }
  // Among the least halves the next one is far away.
  const uint16_t half = float_to_half(best);
  if (half & 0x7fffu) consider(half_to_float(static_cast<uint16_t>(half - 1)));
  consider(half_to_float(static_cast<uint16_t>(half + 1)));
  return best;
}

// x ~ scale * q, q of the grid: the best scale among those that a half holds. Infinite where none is large
// enough.
template <int kN, class Grid>
float scale_only(const float* x, const float* weight, const Grid& grid,
                 Emphases emphases = {Emphasis::None, Emphasis::Root}) {
  const float peak = peak_of<kN>(x);
  if (!(std::fabs(peak) > kLeastPeak)) return 0.0f;
  const Emphasis kind = all_even<kN>(weight) ? emphases.even : emphases.weighted;
  if (kind == Emphasis::None) return best_half_scale<kN, false>(x, weight, nullptr, grid, peak);
  float emphasis[kN];
  emphasise<kN>(kind, x, weight, 0.0f, emphasis);
  return best_half_scale<kN, true>(x, weight, emphasis, grid, peak);
}

}  // namespace apr::fit
