// Tools for quantisers: exact conversions to small floats, and weighted least-squares fits of a scale, or of
// a scale and a minimum, to a block of weights. The error that everything here minimises is  sum of weight[i]
// * (x[i] - w[i])^2.
//
// Method (after the searches in ggml's make_qx_quants and make_qkx2_quants, in own words): for a grid of
// candidate scales round the block to integers, solve for the scale (and minimum) that fits those integers
// best, keep the best pair, and at the end alternate rounding and solving until it stops helping.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>

#include "apr/codec.h"

namespace apr {

// To IEEE binary16, nearest even. What is too large becomes infinity, so that a caller can see it.
inline uint16_t float_to_half(float f) {
  const uint32_t bits = float_to_bits(f), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65520 and more
  if (magnitude < 0x38800000u) {
    // Below 2^-14 the spacing is 2^-24. Adding 0.5 puts the float's last bit at 2^-24: the addition rounds to
    // nearest even.
    return static_cast<uint16_t>(sign | (float_to_bits(bits_to_float(magnitude) + 0.5f) - 0x3f000000u));
  }
  const uint32_t odd = (magnitude >> 13) & 1u;
  return static_cast<uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}

// To bfloat16, nearest even.
inline uint16_t float_to_bfloat(float f) {
  const uint32_t bits = float_to_bits(f);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// The value that a half holds after rounding.
inline float round_to_half(float f) { return half_to_float(float_to_half(f)); }

inline void store_half(uint8_t* p, float f) {
  const uint16_t h = float_to_half(f);
  std::memcpy(p, &h, 2);
}

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

// Eight floats, as the compiler's own vector type: one register with AVX2, two without. Sums run in eight
// lanes, so the bytes that a quantiser writes do not depend on the instruction set that it was compiled for.
typedef float Float8 __attribute__((vector_size(32)));

APR_FN void load8(const float* p, Float8& v) { __builtin_memcpy(&v, p, sizeof(v)); }
APR_FN void store8(float* p, const Float8& v) { __builtin_memcpy(p, &v, sizeof(v)); }
APR_FN float total(const Float8& v) {
  return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7]));
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

// Rounds x to scale * q + offset with q in lo..hi; the weighted squared error.
template <int kN>
float round_to(const float* x, const float* weight, float scale, float offset, float lo, float hi, float* q) {
  const float factor = inverse_of(scale);
  const Float8 least = lo - Float8{}, most = hi - Float8{};
  Float8 error = {};
  for (int i = 0; i < kN; i += 8) {
    Float8 v, w;
    load8(x + i, v);
    load8(weight + i, w);
    Float8 value = (v - offset) * factor;
    value = value > least ? value : least;
    value = value < most ? value : most;
    value = (value + 12582912.0f) -
            12582912.0f;  // nearest integer, ties to even: the sum leaves no fraction bits
    store8(q + i, value);
    const Float8 miss = v - (value * scale + offset);
    error += w * miss * miss;
  }
  return total(error);
}

// The scale that fits x ~ scale * q best, and by how much it lessens the error against scale = 0.
struct Scale {
  float scale, gain;
};
template <int kN>
Scale solve_scale(const float* x, const float* weight, const float* q) {
  Float8 xq = {}, qq = {};
  for (int i = 0; i < kN; i += 8) {
    Float8 v, w, integer;
    load8(x + i, v);
    load8(weight + i, w);
    load8(q + i, integer);
    const Float8 wq = w * integer;
    xq += wq * v;
    qq += wq * integer;
  }
  const float a = total(xq), b = total(qq);
  return b > 0.0f ? Scale{a / b, a / b * a} : Scale{0.0f, 0.0f};
}

// What q may be where there is no offset: the integers lo..hi, or a table.
struct Integers {
  float lo, hi;
  template <int kN>
  float round(const float* x, const float* weight, float scale, float* q) const {
    return round_to<kN>(x, weight, scale, 0.0f, lo, hi, q);
  }
};
template <int kSize>
struct Table {
  float value[kSize];  // ascending
  float lo = value[0], hi = value[kSize - 1];
  template <int kN>
  float round(const float* x, const float* weight, float scale, float* q) const {
    const float factor = inverse_of(scale);
    Float8 error = {};
    for (int i = 0; i < kN; i += 8) {
      Float8 v, w;
      load8(x + i, v);
      load8(weight + i, w);
      const Float8 wanted = v * factor;
      Float8 nearest = value[0] - Float8{};
      for (int t = 1; t < kSize; ++t) {
        const Float8 next = value[t] - Float8{}, middle = 0.5f * (value[t - 1] + value[t]) - Float8{};
        nearest = wanted > middle ? next : nearest;
      }
      store8(q + i, nearest);
      const Float8 miss = v - nearest * scale;
      error += w * miss * miss;
    }
    return total(error);
  }
};

// x ~ scale * q, q of the grid, which reaches below and above zero.
template <int kN, class Grid>
float scale_only(const float* x, const float* weight, const Grid& grid) {
  float peak = 0.0f;
  for (int i = 0; i < kN; ++i)
    if (std::fabs(x[i]) > std::fabs(peak)) peak = x[i];
  if (!(std::fabs(peak) > 1e-30f)) return 0.0f;
  float q[kN];
  Scale best{0.0f, -1.0f};
  // The largest weight may be the most negative integer or the most positive one; either way the scale that
  // spreads it a little beyond or short of the end can serve the others better.
  for (const float end : {grid.lo, grid.hi}) {
    for (int step = -8; step <= 8; ++step) {
      const float trial = peak / (end + 0.1f * static_cast<float>(step));
      grid.template round<kN>(x, weight, trial, q);
      const Scale solved = solve_scale<kN>(x, weight, q);
      if (solved.gain > best.gain) best = solved;
    }
  }
  for (int i = 0; i < 4; ++i) {
    grid.template round<kN>(x, weight, best.scale, q);
    const Scale solved = solve_scale<kN>(x, weight, q);
    if (!(solved.gain > best.gain)) break;
    best = solved;
  }
  return best.scale;
}

// x ~ scale * q + offset.
struct Affine {
  float scale, offset;
};

// The best scale and offset for given integers; the offset at most `highest`.
template <int kN>
Affine solve_affine(const float* x, const float* weight, const float* q, float highest) {
  Float8 sw = {}, sx = {}, sq = {}, sxq = {}, sqq = {};
  for (int i = 0; i < kN; i += 8) {
    Float8 v, weights, integer;
    load8(x + i, v);
    load8(weight + i, weights);
    load8(q + i, integer);
    const Float8 wq = weights * integer;
    sw += weights;
    sx += weights * v;
    sq += wq;
    sxq += wq * v;
    sqq += wq * integer;
  }
  const double w = total(sw), mx = total(sx), mq = total(sq), xq = total(sxq), qq = total(sqq);
  const double determinant = w * qq - mq * mq;
  Affine result{0.0f, w > 0.0 ? static_cast<float>(mx / w) : 0.0f};
  if (determinant > 0.0)
    result = {static_cast<float>((w * xq - mx * mq) / determinant),
              static_cast<float>((qq * mx - mq * xq) / determinant)};
  if (result.offset > highest)
    result = {qq > 0.0 ? static_cast<float>((xq - double{highest} * mq) / qq) : 0.0f, highest};
  return result;
}

// x ~ scale * q + offset, q in 0..hi, scale >= 0, offset <= highest (0 for formats that store a minimum
// without its sign).
template <int kN>
Affine scale_and_offset(const float* x, const float* weight, float hi, float highest) {
  float least = x[0], most = x[0];
  for (int i = 1; i < kN; ++i) {
    least = x[i] < least ? x[i] : least;
    most = x[i] > most ? x[i] : most;
  }
  if (least > highest) least = highest;
  if (!(most > least)) return {0.0f, least};
  float q[kN];
  Affine best{(most - least) / hi, least};
  float best_error = round_to<kN>(x, weight, best.scale, best.offset, 0.0f, hi, q);
  for (int step = -10; step <= 10; ++step) {
    Affine trial{(most - least) / (hi + 0.1f * static_cast<float>(step)), least};
    // Twice: the second time from the solution of the first, whose offset has left the least weight.
    for (int pass = 0; pass < 2; ++pass) {
      round_to<kN>(x, weight, trial.scale, trial.offset, 0.0f, hi, q);
      trial = solve_affine<kN>(x, weight, q, highest);
      if (!(trial.scale > 0.0f)) break;
      const float error = round_to<kN>(x, weight, trial.scale, trial.offset, 0.0f, hi, q);
      if (error < best_error) best_error = error, best = trial;
    }
  }
  for (int i = 0; i < 4; ++i) {
    round_to<kN>(x, weight, best.scale, best.offset, 0.0f, hi, q);
    const Affine solved = solve_affine<kN>(x, weight, q, highest);
    if (!(solved.scale > 0.0f)) break;
    const float error = round_to<kN>(x, weight, solved.scale, solved.offset, 0.0f, hi, q);
    if (!(error < best_error)) break;
    best_error = error, best = solved;
  }
  return best;
}

// ---- two-level scales: kSubs sub-blocks of kN columns, each with small integers for its scale (and
// minimum), and a float
// ---- for the whole superblock that they multiply

// The factor that makes `peak` the integer `end`, as a half holds it; never zero for a peak that is not, so
// that the integers can still reach what the least half cannot divide.
inline float half_factor(float peak, float end) {
  const float factor = peak / end, half = round_to_half(factor);
  return half == 0.0f && factor != 0.0f ? std::copysign(half_to_float(1), factor) : half;
}

inline float integer_of(float value, float factor, float lo, float hi) {
  return factor != 0.0f ? clamp(std::nearbyint(value / factor), lo, hi) : 0.0f;
}

template <int kSubs, int kN>
struct ScaledSuperblock {
  float d;              // a half's value
  float scale[kSubs];   // integers
  float q[kSubs * kN];  // integers
  float error;
};

// x ~ (d * scale[s]) * q; scale in scale_lo..scale_hi, q of the grid.
template <int kSubs, int kN, class Grid>
ScaledSuperblock<kSubs, kN> superblock_scales(const float* x, const float* weight, float scale_lo,
                                              float scale_hi, const Grid& grid) {
  float wanted[kSubs], peak = 0.0f;
  for (int s = 0; s < kSubs; ++s) {
    wanted[s] = scale_only<kN>(x + s * kN, weight + s * kN, grid);
    if (std::fabs(wanted[s]) > std::fabs(peak)) peak = wanted[s];
  }
  ScaledSuperblock<kSubs, kN> best{};
  best.error = INFINITY;
  for (const float end : {scale_lo, scale_hi}) {
    ScaledSuperblock<kSubs, kN> trial{};
    trial.d = half_factor(peak, end);
    for (int s = 0; s < kSubs; ++s) trial.scale[s] = integer_of(wanted[s], trial.d, scale_lo, scale_hi);
    for (int pass = 0; pass < 3; ++pass) {
      trial.error = 0.0f;
      Float8 xu = {}, uu = {};
      for (int s = 0; s < kSubs; ++s) {
        const float *xs = x + s * kN, *ws = weight + s * kN;
        float least = INFINITY, middle = trial.scale[s];
        for (const float candidate : {middle, middle - 1.0f, middle + 1.0f}) {
          if (candidate < scale_lo || candidate > scale_hi) continue;
          float q[kN];
          const float error = grid.template round<kN>(xs, ws, trial.d * candidate, q);
          if (!(error < least)) continue;
          least = error;
          trial.scale[s] = candidate;
          std::memcpy(trial.q + s * kN, q, sizeof(q));
        }
        trial.error += least;
        for (int i = 0; i < kN; i += 8) {
          Float8 v, w, u;
          load8(xs + i, v);
          load8(ws + i, w);
          load8(trial.q + s * kN + i, u);
          u = u * trial.scale[s];
          xu += w * u * v;
          uu += w * u * u;
        }
      }
      if (!(trial.error < best.error) && pass > 0) break;
      if (trial.error < best.error || !std::isfinite(best.error)) best = trial;
      if (!(total(uu) > 0.0f)) break;
      trial.d = round_to_half(total(xu) / total(uu));
    }
  }
  return best;
}

template <int kSubs, int kN>
struct AffineSuperblock {
  float d, dmin;                   // halves' values
  float scale[kSubs], min[kSubs];  // integers
  float q[kSubs * kN];             // integers
  float error;
};

// x ~ (d * scale[s]) * q - dmin * min[s]; scale in 0..scale_hi, min in 0..min_hi, q in 0..hi.
template <int kSubs, int kN>
AffineSuperblock<kSubs, kN> superblock_affine(const float* x, const float* weight, float scale_hi,
                                              float min_hi, float hi) {
  Affine wanted[kSubs];
  float scale_peak = 0.0f, min_peak = 0.0f;
  for (int s = 0; s < kSubs; ++s) {
    wanted[s] = scale_and_offset<kN>(x + s * kN, weight + s * kN, hi, 0.0f);
    scale_peak = std::fmax(scale_peak, wanted[s].scale);
    min_peak = std::fmax(min_peak, -wanted[s].offset);
  }
  AffineSuperblock<kSubs, kN> best{}, trial{};
  best.error = INFINITY;
  trial.d = half_factor(scale_peak, scale_hi);
  trial.dmin = half_factor(min_peak, min_hi);
  for (int s = 0; s < kSubs; ++s) {
    trial.scale[s] = integer_of(wanted[s].scale, trial.d, 0.0f, scale_hi);
    trial.min[s] = integer_of(-wanted[s].offset, trial.dmin, 0.0f, min_hi);
  }
  for (int pass = 0; pass < 3; ++pass) {
    trial.error = 0.0f;
    Float8 xu = {}, xv = {}, uu = {}, uv = {}, vv = {};
    for (int s = 0; s < kSubs; ++s) {
      const float *xs = x + s * kN, *ws = weight + s * kN;
      const float middle_scale = trial.scale[s], middle_min = trial.min[s];
      float least = INFINITY;
      const auto consider = [&](float scale, float min) {
        if (scale < 0.0f || scale > scale_hi || min < 0.0f || min > min_hi) return;
        float q[kN];
        const float error = round_to<kN>(xs, ws, trial.d * scale, -(trial.dmin * min), 0.0f, hi, q);
        if (!(error < least)) return;
        least = error;
        trial.scale[s] = scale, trial.min[s] = min;
        std::memcpy(trial.q + s * kN, q, sizeof(q));
      };
      for (const float ds : {0.0f, -1.0f, 1.0f})
        for (const float dm : {0.0f, -1.0f, 1.0f}) consider(middle_scale + ds, middle_min + dm);
      // Where d or dmin is among the least halves the wanted pair can be far from any that there is.
      consider(middle_scale, 0.0f);
      consider(0.0f, 0.0f);
      trial.error += least;
      const float v = -trial.min[s];
      for (int i = 0; i < kN; i += 8) {
        Float8 y, w, u;
        load8(xs + i, y);
        load8(ws + i, w);
        load8(trial.q + s * kN + i, u);
        u = u * trial.scale[s];
        xu += w * u * y;
        xv += w * v * y;
        uu += w * u * u;
        uv += w * u * v;
        vv += w * v * v;
      }
    }
    if (!(trial.error < best.error) && pass > 0) break;
    if (trial.error < best.error || !std::isfinite(best.error)) best = trial;
    // The pair (d, dmin) that fits these integers best.
    const double a = total(uu), b = total(uv), c = total(vv), e = total(xu), f = total(xv);
    const double determinant = a * c - b * b;
    if (determinant > 1e-9 * a * c && a > 0.0 && c > 0.0) {
      trial.d = round_to_half(static_cast<float>((e * c - f * b) / determinant));
      trial.dmin = round_to_half(static_cast<float>((a * f - b * e) / determinant));
    } else if (a > 0.0) {
      trial.d = round_to_half(static_cast<float>((e - b * static_cast<double>(trial.dmin)) / a));
    }
    if (!(trial.d >= 0.0f) || !(trial.dmin >= 0.0f)) break;
  }
  return best;
}

}  // namespace fit
}  // namespace apr
