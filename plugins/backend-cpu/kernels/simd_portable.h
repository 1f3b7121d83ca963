// Four floats in whatever vector registers the compiler's base architecture has (SSE2, NEON): the reference of the other
// instruction sets, and what runs where they are missing. A "fused" multiply-add is two roundings here.
#pragma once

#include <cstdint>

namespace apr::cpu {

struct F32x4 {
  static constexpr int kWidth = 4;
  static constexpr int kBlockRows = 2;  // GEMM block: rows of x
  static constexpr int kScoreRows =
      4;  // attention: rows of queries that are scored together, times two vectors of keys
  static constexpr int kOutRows = 2;     // attention: rows of output that are summed together ...
  static constexpr int kOutVectors = 4;  // ... so many vectors of them at a time
  typedef float Vec __attribute__((vector_size(16)));
  typedef int32_t Int __attribute__((vector_size(16)));
  Vec v;

  static F32x4 zero() { return {Vec{0, 0, 0, 0}}; }
  static F32x4 set(float x) { return {Vec{x, x, x, x}}; }
  static F32x4 load(const float* p) {
    F32x4 r;
    __builtin_memcpy(&r.v, p, 16);
    return r;
  }
  void store(float* p) const { __builtin_memcpy(p, &v, 16); }
  static F32x4 load_n(const float* p, int n) {
    F32x4 r = zero();
    for (int i = 0; i < n; ++i) r.v[i] = p[i];
    return r;
  }
  void store_n(float* p, int n) const {
    for (int i = 0; i < n; ++i) p[i] = v[i];
  }

  friend F32x4 operator+(F32x4 a, F32x4 b) { return {a.v + b.v}; }
  friend F32x4 operator-(F32x4 a, F32x4 b) { return {a.v - b.v}; }
  friend F32x4 operator*(F32x4 a, F32x4 b) { return {a.v * b.v}; }
  friend F32x4 operator/(F32x4 a, F32x4 b) { return {a.v / b.v}; }
  static F32x4 fma(F32x4 a, F32x4 b, F32x4 c) { return {a.v * b.v + c.v}; }
  // In a register, where a compiler would load it again for each use.
  static F32x4 keep(F32x4 x) { return x; }
  // A NaN in b is kept.
  static F32x4 max(F32x4 a, F32x4 b) { return {a.v > b.v ? a.v : b.v}; }
  static F32x4 min(F32x4 a, F32x4 b) { return {a.v < b.v ? a.v : b.v}; }
  static bool any_above(F32x4 a, F32x4 b) {
    const Int above = a.v > b.v;
    return (above[0] | above[1] | above[2] | above[3]) != 0;
  }
  // Nearest even, for |x| < 2^22: adding 1.5 * 2^23 leaves no fraction bits.
  static F32x4 round(F32x4 x) {
    const Vec magic = set(12582912.0f).v;
    return {(x.v + magic) - magic};
  }
  // x * 2^n for an integral n in [-252, 254], in two steps so that each factor is a normal number.
  static F32x4 scale(F32x4 x, F32x4 n) {
    const Int i = __builtin_convertvector(n.v, Int);
    const Int half = i >> 1, rest = i - half;
    return {x.v * reinterpret_cast<Vec>((half + 127) << 23) * reinterpret_cast<Vec>((rest + 127) << 23)};
  }
  // Lane j of the result is the sum of the lanes of a[j].
  static F32x4 sums(const F32x4* a) {
    F32x4 r;
    for (int j = 0; j < 4; ++j) r.v[j] = (a[j].v[0] + a[j].v[2]) + (a[j].v[1] + a[j].v[3]);
    return r;
  }
  static float sum(F32x4 a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
  static float largest(F32x4 a) {
    const float x = a.v[0] > a.v[1] ? a.v[0] : a.v[1], y = a.v[2] > a.v[3] ? a.v[2] : a.v[3];
    return x > y ? x : y;
  }

  static void transpose(F32x4* a) {
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < i; ++j) {
        const float x = a[i].v[j];
        a[i].v[j] = a[j].v[i];
        a[j].v[i] = x;
      }
  }
  // The bits of both; has_bits: whether any is set.
  static F32x4 either(F32x4 a, F32x4 b) {
    return {reinterpret_cast<Vec>(reinterpret_cast<Int>(a.v) | reinterpret_cast<Int>(b.v))};
  }
  static bool has_bits(F32x4 a) {
    const Int i = reinterpret_cast<Int>(a.v);
    return (i[0] | i[1] | i[2] | i[3]) != 0;
  }

  static F32x4 from_half(const uint16_t* p) {
    const Int h = {p[0], p[1], p[2], p[3]};
    const Int magnitude = h & 0x7fff;
    // Shifted into place the exponent is 112 too small; the product corrects it and normalises subnormals exactly.
    const Vec finite = reinterpret_cast<Vec>(magnitude << 13) * set(0x1p112f).v;
    const Int special = (magnitude << 13) | 0x7f800000;
    const Int bits = magnitude >= 0x7c00 ? special : reinterpret_cast<Int>(finite);
    return {reinterpret_cast<Vec>(bits | (h & 0x8000) << 16)};
  }
  void to_half(uint16_t* p) const {
    for (int i = 0; i < 4; ++i) p[i] = float_to_half(v[i]);
  }
  static uint16_t float_to_half(float x) {
    uint32_t bits;
    __builtin_memcpy(&bits, &x, 4);
    const uint32_t sign = bits >> 16 & 0x8000u;
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | (bits >> 13 & 0x1ffu));
    if (bits >= 0x477ff000u)
      return static_cast<uint16_t>(sign | 0x7c00u);  // 65520 and more round to infinity
    if (bits < 0x38800000u) {
      // Below the smallest normal half: adding 0.5 aligns the subnormal's last bit with the float's and rounds it there.
      float magnitude;
      __builtin_memcpy(&magnitude, &bits, 4);
      magnitude += 0.5f;
      __builtin_memcpy(&bits, &magnitude, 4);
      return static_cast<uint16_t>(sign | (bits - 0x3f000000u));
    }
    bits += 0xfffu + (bits >> 13 & 1u);
    return static_cast<uint16_t>(sign | ((bits - 0x38000000u) >> 13));
  }

  // Bits of the largest |x| of 32: compared as integers an infinity is above every number, and a NaN above it.
  static uint32_t abs_max_bits(const float* x) {
    uint32_t bits[32], most = 0;
    __builtin_memcpy(bits, x, sizeof(bits));
    for (const uint32_t b : bits) most = (b & 0x7fffffffu) > most ? b & 0x7fffffffu : most;
    return most;
  }
  // q = nearest(x * inverse) of 32, and the sums of the first and the last 16.
  static void quantize(const float* x, float inverse, int8_t* q, int32_t sum[2]) {
    for (int half = 0; half < 2; ++half) {
      sum[half] = 0;
      for (int i = 16 * half; i < 16 * half + 16; ++i) {
        const float r = (x[i] * inverse + 12582912.0f) - 12582912.0f;
        q[i] = static_cast<int8_t>(static_cast<int32_t>(r));
        sum[half] += q[i];
      }
    }
  }

  // Sum of squares, in double.
  static double sum_squares(const float* x, uint64_t n) {
    double s[4] = {};
    uint64_t i = 0;
    for (; i + 4 <= n; i += 4)
      for (int j = 0; j < 4; ++j) s[j] += static_cast<double>(x[i + j]) * x[i + j];
    for (; i < n; ++i) s[0] += static_cast<double>(x[i]) * x[i];
    return (s[0] + s[1]) + (s[2] + s[3]);
  }
};

}  // namespace apr::cpu
