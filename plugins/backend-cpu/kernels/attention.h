// Attention of a few query rows over one chunk of a KV head's cache, for any vector type of the simd_*.h headers.
//
// A tile of 32 keys is scored for a group of rows at once: a vector of keys' columns times each row's column, no sums across
// lanes. With many rows the tile is converted to float first, so that its conversion is shared; the bits are the same. The
// softmax is online within a chunk. A row's arithmetic does not depend on which rows it is computed with, so a token's result
// is the same in a prompt and alone.
#pragma once

#include "rows.h"

namespace apr::cpu {

template <class V>
struct Attention {
  static constexpr int W = V::kWidth;
  static constexpr int kTile = kTileKeys;
  static_assert(W <= static_cast<int>(kLanes));

  static V load(const float* p) { return V::load(p); }
  static V load(const uint16_t* p) { return V::from_half(p); }

  // The tile of the cache that comes after the present one, asked for a line at a time while the present one is computed
  // with; null: none. Reading a long context from memory takes as long as computing with it, and without this they take
  // turns.
  struct Next {
    const uint16_t* k = nullptr;
    const uint16_t* v = nullptr;
  };
  static_assert(kTile * sizeof(uint16_t) == 64, "a column of keys is a cache line");

  // score[r][j] = q[r] . k[j] for the vectors of keys that hold [lo, hi).
  template <int kRows, class T>
  static void scores(const float* q, uint32_t padded, const T* k, uint32_t head_dim, int lo, int hi,
                     const Next& next, float* score) {
    constexpr int kVectors = 2, kKeys = kVectors * W;
    for (int j = lo / kKeys * kKeys; j < hi; j += kKeys) {
      V acc[kRows][kVectors];
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
        for (int c = 0; c < kVectors; ++c) acc[r][c] = V::zero();
      const T* column = k + j;
      for (uint32_t d = 0; d < head_dim; ++d, column += kTile) {
        if (next.k) __builtin_prefetch(next.k + d * kTile);
        V key[kVectors];
#pragma GCC unroll 2
        for (int c = 0; c < kVectors; ++c) key[c] = load(column + c * W);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          const V x = V::set(q[r * padded + d]);
#pragma GCC unroll 2
          for (int c = 0; c < kVectors; ++c) acc[r][c] = V::fma(x, key[c], acc[r][c]);
        }
      }
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
        for (int c = 0; c < kVectors; ++c) acc[r][c].store(score + r * kTile + j + c * W);
    }
  }

  // Scores of a row become exp(s - max) in place, and are added to the row's sum, lane by lane; gives exp(old max - new max).
  static float soften(float* score, int lo, int hi, float* max, float* sum) {
    for (int i = 0; i < lo; ++i) score[i] = -__builtin_inff();
    for (int i = hi; i < kTile; ++i) score[i] = -__builtin_inff();
    V most = V::load(score);
    for (int i = W; i < kTile; i += W) most = V::max(most, V::load(score + i));
    V total = V::load(sum);
    float keep = 1.0f;
    // Seldom after the first tiles: a comparison is cheaper than the largest lane.
    if (V::any_above(most, V::set(*max))) {
      const float now = V::largest(most);
      keep = first(exp(V::set(*max - now)));
      *max = now;
      total = total * V::set(keep);
    }
    for (int i = 0; i < kTile; i += W) {
      const V p = exp(V::load(score + i) - V::set(*max));
      p.store(score + i);
      total = total + p;
    }
    total.store(sum);
    return keep;
  }
  static float first(V x) {
    float lanes[W];
    x.store(lanes);
    return lanes[0];
  }

  // o[r][d] = o[r][d] * keep[r] + sum over keys of p[r][key] * v[key][d], kVectors vectors of columns from d.
  template <int kRows, int kVectors, class T>
  static void outputs(const float* p, const T* v, uint32_t padded, int lo, int hi, const float* keep,
                      const uint16_t* next, float* o) {
    V acc[kRows][kVectors];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
      for (int c = 0; c < kVectors; ++c) acc[r][c] = V::load(o + r * padded + c * W) * V::set(keep[r]);
    const T* row = v + static_cast<uint64_t>(lo) * padded;
    for (int key = lo; key < hi; ++key, row += padded) {
      if (next)
        for (int i = 0; i < kVectors * W; i += 32) __builtin_prefetch(next + key * padded + i);
      V weight[kRows];
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) weight[r] = V::set(p[r * kTile + key]);
#pragma GCC unroll 8
      for (int c = 0; c < kVectors; ++c) {
        const V value = V::keep(load(row + c * W));
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) acc[r][c] = V::fma(weight[r], value, acc[r][c]);
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
      for (int c = 0; c < kVectors; ++c) acc[r][c].store(o + r * padded + c * W);
  }

  template <int kRows, class T>
  static void all_columns(const float* p, const T* v, uint32_t padded, int lo, int hi, const float* keep,
                          const uint16_t* next, float* o) {
    constexpr int kMany = V::kOutVectors;
    const auto ahead = [&](uint32_t d) { return next ? next + d : nullptr; };
    uint32_t d = 0;
    for (; d + kMany * W <= padded; d += kMany * W)
      outputs<kRows, kMany>(p, v + d, padded, lo, hi, keep, ahead(d), o + d);
    if constexpr (kMany > 4)
      for (; d + 4 * W <= padded; d += 4 * W)
        outputs<kRows, 4>(p, v + d, padded, lo, hi, keep, ahead(d), o + d);
    for (; d + 2 * W <= padded; d += 2 * W)
      outputs<kRows, 2>(p, v + d, padded, lo, hi, keep, ahead(d), o + d);
    for (; d < padded; d += W) outputs<kRows, 1>(p, v + d, padded, lo, hi, keep, ahead(d), o + d);
  }

  // kRows rows that see the same keys [lo, hi) of a tile.
  template <int kRows, class T>
  static void group(const AttendChunk& c, uint32_t row, const T* k, const T* v, int lo, int hi,
                    const Next& next) {
    scores<kRows>(c.q + row * c.padded, c.padded, k, c.head_dim, lo, hi, next, c.score);
    float keep[kRows];
    for (int r = 0; r < kRows; ++r)
      keep[r] = soften(c.score + r * kTile, lo, hi, c.max + row + r, c.lanes + (row + r) * kLanes);
    float* o = c.o + row * c.padded;
    constexpr int kParts = (kRows + V::kOutRows - 1) / V::kOutRows, kSmall = kRows / kParts,
                  kLarge = kRows - kSmall * kParts;
    int r = 0;
    if constexpr (kLarge > 0)
      for (; r < kLarge * (kSmall + 1); r += kSmall + 1)
        all_columns<kSmall + 1>(c.score + r * kTile, v, c.padded, lo, hi, keep + r, r == 0 ? next.v : nullptr,
                                o + r * c.padded);
    for (; r < kRows; r += kSmall)
      all_columns<kSmall>(c.score + r * kTile, v, c.padded, lo, hi, keep + r, r == 0 ? next.v : nullptr,
                          o + r * c.padded);
  }

  template <class T>
  static void rows(const AttendChunk& c, uint32_t row, uint32_t n, const T* k, const T* v, int lo, int hi,
                   const Next& next) {
    static_assert(V::kScoreRows <= static_cast<int>(kScoreRows));
    // Groups as equal as possible: 8 rows are 4 and 4, not 6 and 2.
    const uint32_t groups = (n + V::kScoreRows - 1) / V::kScoreRows;
    for (uint32_t g = 0; g < groups; ++g) {
      const uint32_t begin = n * g / groups, count = n * (g + 1) / groups - begin;
      const Next& then = g == 0 ? next : Next{};
      switch (count) {
        case 1:
          group<1>(c, row + begin, k, v, lo, hi, then);
          break;
        case 2:
          group<2>(c, row + begin, k, v, lo, hi, then);
          break;
        case 3:
          group<3>(c, row + begin, k, v, lo, hi, then);
          break;
        case 4:
          group<4>(c, row + begin, k, v, lo, hi, then);
          break;
        case 5:
          if constexpr (V::kScoreRows >= 5) group<5>(c, row + begin, k, v, lo, hi, then);
          break;
        default:
          if constexpr (V::kScoreRows >= 6) group<6>(c, row + begin, k, v, lo, hi, then);
          break;
      }
    }
  }

  static void convert(const uint16_t* from, uint64_t n, float* to) {
    for (uint64_t i = 0; i < n; i += W) V::from_half(from + i).store(to + i);
  }

  // Rows that see the same keys of a tile, together. The first of them ask for the next tile.
  template <class T>
  static void tile(const AttendChunk& c, int32_t key, int count, const T* k, const T* v, Next next) {
    const auto lo = [&](uint32_t r) { return c.first[r] > key ? c.first[r] - key : 0; };
    const auto hi = [&](uint32_t r) { return c.last[r] - key < count ? c.last[r] - key + 1 : count; };
    for (uint32_t r = 0, n; r < c.rows; r += n) {
      const int from = lo(r), to = hi(r);
      for (n = 1; r + n < c.rows && lo(r + n) == from && hi(r + n) == to;) ++n;
      if (from >= to) continue;
      rows(c, r, n, k, v, from, to, next);
      next = {};
    }
  }

  static void attend(const AttendChunk& c) {
    // Fewer rows use a tile too few times for its conversion to pay.
    constexpr uint32_t kManyRows = 9;
    for (uint32_t r = 0; r < c.rows; ++r) c.max[r] = -__builtin_inff();
    __builtin_memset(c.o, 0, sizeof(float) * c.rows * c.padded);
    __builtin_memset(c.lanes, 0, sizeof(float) * c.rows * kLanes);
    for (int32_t key = c.begin; key < c.end; key += kTile) {
      const int count = c.end - key < kTile ? c.end - key : kTile;
      const uint64_t k_at = static_cast<uint64_t>(key) * c.head_dim,
                     v_at = static_cast<uint64_t>(key) * c.padded;
      if (!c.half) {
        tile(c, key, count, static_cast<const float*>(c.k) + k_at, static_cast<const float*>(c.v) + v_at, {});
        continue;
      }
      const uint16_t *k = static_cast<const uint16_t*>(c.k) + k_at,
                     *v = static_cast<const uint16_t*>(c.v) + v_at;
      Next next;
      if (key + kTile < c.stored) next = {k + kTile * c.head_dim, v + kTile * c.padded};
      if (c.rows < kManyRows) {
        tile(c, key, count, k, v, next);
      } else {
        float* const v_tile = c.tile + kTile * c.padded;
        convert(k, kTile * uint64_t{c.head_dim}, c.tile);
        convert(v, count * uint64_t{c.padded}, v_tile);
        tile<float>(c, key, count, c.tile, v_tile, next);
      }
    }
    for (uint32_t r = 0; r < c.rows; ++r) c.sum[r] = V::sum(V::load(c.lanes + r * kLanes));
  }

  static void join(const float* o, float max, float sum, uint32_t padded, float* to_o, float* to_max,
                   float* to_sum) {
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
