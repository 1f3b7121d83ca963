// Attention of a few query rows over one chunk of a KV head's cache, for any vector type of the simd_*.h headers.
//
// Keys and values are converted to float a tile of 32 at a time, then every row of queries uses the tile: one conversion
// serves all heads of a group and all tokens of a block. The softmax is online within a chunk. A row's arithmetic does
// not depend on which rows it is computed with, so a token's result is the same in a prompt and alone.
#pragma once

#include "rows.h"

namespace apr::cpu {

template <class V>
struct Attention {
  static constexpr int W = V::kWidth;
  static constexpr int kTile = kTileKeys;

  static const float* tile_of(const void* cache, bool half, int32_t key, int count, uint32_t padded, float* tile) {
    if (!half) return static_cast<const float*>(cache) + static_cast<uint64_t>(key) * padded;
    const uint16_t* p = static_cast<const uint16_t*>(cache) + static_cast<uint64_t>(key) * padded;
    const uint64_t n = static_cast<uint64_t>(count) * padded;
    for (uint64_t i = 0; i < n; i += W) V::from_half(p + i).store(tile + i);
    return tile;
  }

  // score[r][j] = q[r] . k[j] for the blocks of keys that hold [lo, hi). W sums of W lanes are formed together.
  template <int kRows>
  static void scores(const float* q, const float* k, uint32_t padded, int lo, int hi, float* score) {
    constexpr int kKeys = W / kRows;
    for (int j = lo / kKeys * kKeys; j < hi; j += kKeys) {
      V acc[W];
      for (int i = 0; i < W; ++i) acc[i] = V::zero();
      const float* keys = k + static_cast<uint64_t>(j) * padded;
      for (uint32_t d = 0; d < padded; d += W) {
        V x[kRows];
#pragma GCC unroll 2
        for (int r = 0; r < kRows; ++r) x[r] = V::load(q + r * padded + d);
#pragma GCC unroll 16
        for (int i = 0; i < kKeys; ++i) {
          const V key = V::load(keys + i * padded + d);
#pragma GCC unroll 2
          for (int r = 0; r < kRows; ++r) acc[r * kKeys + i] = V::fma(x[r], key, acc[r * kKeys + i]);
        }
      }
      float sums[W];
      V::sums(acc).store(sums);
      for (int r = 0; r < kRows; ++r) __builtin_memcpy(score + r * kTile + j, sums + r * kKeys, kKeys * sizeof(float));
    }
  }

  // Scores of a row become exp(s - max) in place; gives exp(old max - new max).
  static float soften(float* score, int lo, int hi, float* max, float* sum) {
    for (int i = 0; i < lo; ++i) score[i] = -__builtin_inff();
    for (int i = hi; i < kTile; ++i) score[i] = -__builtin_inff();
    V most = V::load(score);
    for (int i = W; i < kTile; i += W) most = V::max(most, V::load(score + i));
    const float tile_max = V::largest(most), old = *max, now = old > tile_max ? old : tile_max;
    V total = V::zero();
    for (int i = 0; i < kTile; i += W) {
      const V p = exp(V::load(score + i) - V::set(now));
      p.store(score + i);
      total = total + p;
    }
    const float keep = first(exp(V::set(old - now)));
    *max = now;
    *sum = *sum * keep + V::sum(total);
    return keep;
  }
  static float first(V x) {
    float lanes[W];
    x.store(lanes);
    return lanes[0];
  }

  // o[r][d] = o[r][d] * keep[r] + sum over keys of p[r][key] * v[key][d], kVectors vectors of columns from d.
  template <int kRows, int kVectors>
  static void outputs(const float* p, const float* v, uint32_t padded, int lo, int hi, const float* keep, float* o) {
    V acc[kRows][kVectors];
    for (int r = 0; r < kRows; ++r)
      for (int c = 0; c < kVectors; ++c) acc[r][c] = V::load(o + r * padded + c * W) * V::set(keep[r]);
    for (int key = lo; key < hi; ++key) {
      const float* row = v + static_cast<uint64_t>(key) * padded;
      V weight[kRows];
#pragma GCC unroll 2
      for (int r = 0; r < kRows; ++r) weight[r] = V::set(p[r * kTile + key]);
#pragma GCC unroll 8
      for (int c = 0; c < kVectors; ++c) {
        const V value = V::load(row + c * W);
#pragma GCC unroll 2
        for (int r = 0; r < kRows; ++r) acc[r][c] = V::fma(weight[r], value, acc[r][c]);
      }
    }
    for (int r = 0; r < kRows; ++r)
      for (int c = 0; c < kVectors; ++c) acc[r][c].store(o + r * padded + c * W);
  }

  template <int kRows>
  static void tile_rows(const AttendChunk& c, uint32_t row, const float* k, const float* v, int lo, int hi) {
    scores<kRows>(c.q + row * c.padded, k, c.padded, lo, hi, c.score);
    float keep[kRows];
    for (int r = 0; r < kRows; ++r) keep[r] = soften(c.score + r * kTile, lo, hi, c.max + row + r, c.sum + row + r);
    float* o = c.o + row * c.padded;
    uint32_t d = 0;
    constexpr int kMany = V::kOutVectors;
    for (; d + kMany * W <= c.padded; d += kMany * W) outputs<kRows, kMany>(c.score, v + d, c.padded, lo, hi, keep, o + d);
    if constexpr (kMany > 4)
      for (; d + 4 * W <= c.padded; d += 4 * W) outputs<kRows, 4>(c.score, v + d, c.padded, lo, hi, keep, o + d);
    for (; d + 2 * W <= c.padded; d += 2 * W) outputs<kRows, 2>(c.score, v + d, c.padded, lo, hi, keep, o + d);
    for (; d < c.padded; d += W) outputs<kRows, 1>(c.score, v + d, c.padded, lo, hi, keep, o + d);
  }

  static void attend(const AttendChunk& c) {
    for (uint32_t r = 0; r < c.rows; ++r) c.max[r] = -__builtin_inff(), c.sum[r] = 0.0f;
    __builtin_memset(c.o, 0, sizeof(float) * c.rows * c.padded);
    for (int32_t key = c.begin; key < c.end; key += kTile) {
      const int count = c.end - key < kTile ? c.end - key : kTile;
      const auto lo = [&](uint32_t r) { return c.first[r] > key ? c.first[r] - key : 0; };
      const auto hi = [&](uint32_t r) { return c.last[r] - key < count ? c.last[r] - key + 1 : count; };
      const float *k = nullptr, *v = nullptr;
      for (uint32_t r = 0; r < c.rows;) {
        const int from = lo(r), to = hi(r);
        const bool pair = r + 1 < c.rows && lo(r + 1) == from && hi(r + 1) == to;
        if (from < to) {
          if (!k) {
            k = tile_of(c.k, c.half, key, count, c.padded, c.tile);
            v = tile_of(c.v, c.half, key, count, c.padded, c.tile + kTile * c.padded);
          }
          if (pair)
            tile_rows<2>(c, r, k, v, from, to);
          else
            tile_rows<1>(c, r, k, v, from, to);
        }
        r += pair ? 2 : 1;
      }
    }
  }

  static void join(const float* o, float max, float sum, uint32_t padded, float* to_o, float* to_max, float* to_sum) {
    if (sum == 0.0f) return;  // no key of that chunk was seen; a NaN goes on
    const float now = *to_max > max ? *to_max : max;
    const float keep = first(exp(V::set(*to_max - now))), take = first(exp(V::set(max - now)));
    for (uint32_t d = 0; d < padded; d += W)
      V::fma(V::load(o + d), V::set(take), V::load(to_o + d) * V::set(keep)).store(to_o + d);
    *to_sum = *to_sum * keep + sum * take;
    *to_max = now;
  }

  static void finish(const float* o, float sum, uint32_t n, float* y) {
    const float inverse = 1.0f / sum;
    for (uint32_t i = 0; i < n; ++i) y[i] = o[i] * inverse;
  }
};

}  // namespace apr::cpu
