// Attention of one warp: columns of 8 queries against tiles of 16 cached positions, on tensor cores, straight
// from the cache to registers.
//
// S^T[16 positions, 8 queries] = K Q^T and O^T[dims, 8 queries] += V^T P^T. With queries as the narrow side,
// the 7 or 8 heads that share a KV head in decode fill the tile. A product does not care how its inner
// dimension is ordered, so every lane reads 16 contiguous bytes of a row and calls them what the fragment
// needs:
//   K: lane (g, t) = (lane / 4, lane % 4) has positions g and g + 8, dims 32 j + 8 t ..+7: fragments of inner
//   steps 2j, 2j+1 V: lane (g, t) has positions 2t, 2t+1, 2t+8, 2t+9, dims 64 j + 8 g ..+7: fragments of four
//   16-dim output tiles, in which
//      row g is dim 64 j + 8 g + 2 p and row g + 8 is dim 64 j + 8 g + 2 p + 1
#pragma once

#include "apr_device.h"

namespace apr {

// Eight halves of the cache, or zeros: rows that are not written yet hold anything, and 0 * NaN is NaN. Not
// the read-only path: an earlier kernel of the same step may have written the row. A predicated load instead
// of a branch around each.
APR_DEV U4 load_cache(const uint16_t* p, bool there) {
  U4 v;
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %5, 0;\n"
      "mov.b32 %0, 0; mov.b32 %1, 0; mov.b32 %2, 0; mov.b32 %3, 0;\n"
      "@p ld.global.v4.u32 {%0,%1,%2,%3}, [%4]; }"
      : "=&r"(v.x), "=&r"(v.y), "=&r"(v.z), "=&r"(v.w)
      : "l"(p), "r"(static_cast<int>(there))
      : "memory");
  return v;
}

APR_DEV uint32_t transpose8(uint32_t v) {
  uint32_t r;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(r) : "r"(v));
  return r;
}

// kDim: multiple of 8. kCols: groups of 8 queries. kTerms: 2 = q and p as two f16 terms each, which leaves
// the cache's own rounding as the only one that counts; 1 = one term.
template <int kDim, int kCols, int kTerms>
struct AttentionWarp {
  static_assert(kDim % 8 == 0, "head sizes are multiples of 8");
  static constexpr int kKGroups = ceil_div(kDim, 32);
  static constexpr int kVGroups = ceil_div(kDim, 64);

  uint32_t q[kTerms][kCols][kKGroups * 2][2];
  float o[kCols][kVGroups * 4][4];
  float largest[kCols][2],
      total[kCols][2];  // of queries 2t and 2t+1; in units of log2; total is this lane's part

  struct TileK {
    U4 w[kKGroups][2];
  };
  struct TileV {
    U4 w[kVGroups][4];
  };

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int c = 0; c < kCols; ++c) {
#pragma unroll
      for (int i = 0; i < kVGroups * 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) o[c][i][j] = 0.0f;
#pragma unroll
      for (int j = 0; j < 2; ++j) largest[c][j] = -3.0e38f, total[c][j] = 0.0f;
    }
  }

  // get(query, dim): q * scale * log2(e), eight floats from dim; called with dim < kDim.
  template <typename Get>
  __device__ __forceinline__ void set_queries(const Get& get) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int c = 0; c < kCols; ++c)
#pragma unroll
      for (int j = 0; j < kKGroups; ++j) {
        float v[8] = {};
        if (kDim % 32 == 0 || 32 * j + 8 * t < kDim) get(8 * c + g, 32 * j + 8 * t, v);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const uint32_t hi = pack_f16(v[2 * i], v[2 * i + 1]);
          q[0][c][2 * j + i / 2][i % 2] = hi;
          if constexpr (kTerms == 2)
            q[1][c][2 * j + i / 2][i % 2] = pack_f16(v[2 * i] - f16_lo(hi), v[2 * i + 1] - f16_hi(hi));
        }
      }
  }

  // 16 positions from `position` on, those below `end`; cache: the sequence's first row.
  static __device__ __forceinline__ void fetch_k(TileK& k, const uint16_t* cache, int position, int end) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const uint16_t* p = cache + static_cast<int64_t>(position + g) * kDim + 8 * t;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const bool there = position + g + 8 * h < end;
#pragma unroll
      for (int j = 0; j < kKGroups; ++j)
        k.w[j][h] = load_cache(p + 8 * h * kDim + 32 * j, there && (kDim % 32 == 0 || 32 * j + 8 * t < kDim));
    }
  }
  static __device__ __forceinline__ void fetch_v(TileV& v, const uint16_t* cache, int position, int end) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const uint16_t* p = cache + static_cast<int64_t>(position + 2 * t) * kDim + 8 * g;
#pragma unroll
    for (int h = 0; h < 4; ++h) {
      const int row = h % 2 + 8 * (h / 2);
      const bool there = position + 2 * t + row < end;
#pragma unroll
      for (int j = 0; j < kVGroups; ++j)
        v.w[j][h] = load_cache(p + row * kDim + 64 * j, there && (kDim % 64 == 0 || 64 * j + 8 * g < kDim));
    }
  }

  // Puts row `offset` of a tile in from shared memory.
  static __device__ __forceinline__ void insert(TileK& k, TileV& v, int offset, const uint16_t* key,
                                                const uint16_t* value) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      if (g + 8 * h != offset) continue;
#pragma unroll
      for (int j = 0; j < kKGroups; ++j)
        if (kDim % 32 == 0 || 32 * j + 8 * t < kDim)
          k.w[j][h] = *reinterpret_cast<const U4*>(key + 32 * j + 8 * t);
    }
#pragma unroll
    for (int h = 0; h < 4; ++h) {
      if (2 * t + h % 2 + 8 * (h / 2) != offset) continue;
#pragma unroll
      for (int j = 0; j < kVGroups; ++j)
        if (kDim % 64 == 0 || 64 * j + 8 * g < kDim)
          v.w[j][h] = *reinterpret_cast<const U4*>(value + 64 * j + 8 * g);
    }
  }

  // kTiles tiles of 16 positions from `position` on. seen(column group, 0 or 1, position): whether query 2t
  // (+1) of the group attends to it.
  template <int kTiles, typename Seen>
  __device__ __forceinline__ void attend(const TileK (&k)[kTiles], const TileV (&v)[kTiles], int position,
                                         const Seen& seen) {
    const int g = threadIdx.x % 32 / 4;
#pragma unroll
    for (int c = 0; c < kCols; ++c) {
      float s[kTiles][4];
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        // Independent sums: a chain of dependent products would cost their latency each.
        float part[kTerms][2][4] = {};
#pragma unroll
        for (int j = 0; j < kKGroups; ++j) {
          const uint32_t a0[4] = {k[i].w[j][0].x, k[i].w[j][1].x, k[i].w[j][0].y, k[i].w[j][1].y};
          const uint32_t a1[4] = {k[i].w[j][0].z, k[i].w[j][1].z, k[i].w[j][0].w, k[i].w[j][1].w};
#pragma unroll
          for (int n = 0; n < kTerms; ++n) {
            mma_f16(part[n][0], a0, q[n][c][2 * j][0], q[n][c][2 * j][1]);
            mma_f16(part[n][1], a1, q[n][c][2 * j + 1][0], q[n][c][2 * j + 1][1]);
          }
        }
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          s[i][e] = part[0][0][e] + part[0][1][e];
          if constexpr (kTerms == 2) s[i][e] += part[1][0][e] + part[1][1][e];
        }
      }
      float rise[2];
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float top = -3.0e38f;
#pragma unroll
        for (int i = 0; i < kTiles; ++i)
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            float& value = s[i][2 * h + e];
            if (!seen(c, e, position + 16 * i + g + 8 * h)) value = -3.0e38f;
            top = fmaxf(top, value);
          }
        top = fmaxf(top, __shfl_xor_sync(kFull, top, 4));
        top = fmaxf(top, __shfl_xor_sync(kFull, top, 8));
        top = fmaxf(top, __shfl_xor_sync(kFull, top, 16));
        top = fmaxf(top, largest[c][e]);
        rise[e] = exp2f(largest[c][e] - top);
        largest[c][e] = top;
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < kTiles; ++i)
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            float& value = s[i][2 * h + e];
            // A query that sees nothing yet has top at its floor: exp2(0) would count.
            value = value > -2.0e38f ? exp2f(value - top) : 0.0f;
            sum += value;
          }
        total[c][e] = total[c][e] * rise[e] + sum;
      }
#pragma unroll
      for (int i = 0; i < kVGroups * 4; ++i) {
        o[c][i][0] *= rise[0], o[c][i][1] *= rise[1], o[c][i][2] *= rise[0], o[c][i][3] *= rise[1];
      }
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        uint32_t p[kTerms][2];
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const uint32_t hi = pack_f16(s[i][2 * h], s[i][2 * h + 1]);
          p[0][h] = transpose8(hi);
          if constexpr (kTerms == 2)
            p[1][h] = transpose8(pack_f16(s[i][2 * h] - f16_lo(hi), s[i][2 * h + 1] - f16_hi(hi)));
        }
#pragma unroll
        for (int j = 0; j < kVGroups; ++j) {
          const uint32_t w[4][4] = {{v[i].w[j][0].x, v[i].w[j][0].y, v[i].w[j][0].z, v[i].w[j][0].w},
                                    {v[i].w[j][1].x, v[i].w[j][1].y, v[i].w[j][1].z, v[i].w[j][1].w},
                                    {v[i].w[j][2].x, v[i].w[j][2].y, v[i].w[j][2].z, v[i].w[j][2].w},
                                    {v[i].w[j][3].x, v[i].w[j][3].y, v[i].w[j][3].z, v[i].w[j][3].w}};
#pragma unroll
          for (int d = 0; d < 4; ++d) {
            const uint32_t a[4] = {
                __byte_perm(w[0][d], w[1][d], 0x5410), __byte_perm(w[0][d], w[1][d], 0x7632),
                __byte_perm(w[2][d], w[3][d], 0x5410), __byte_perm(w[2][d], w[3][d], 0x7632)};
#pragma unroll
            for (int n = 0; n < kTerms; ++n) mma_f16(o[c][4 * j + d], a, p[n][0], p[n][1]);
          }
        }
      }
    }
  }

  // After the last tile: totals over all positions, in every lane.
  __device__ __forceinline__ void finish() {
#pragma unroll
    for (int c = 0; c < kCols; ++c)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        total[c][e] += __shfl_xor_sync(kFull, total[c][e], 4);
        total[c][e] += __shfl_xor_sync(kFull, total[c][e], 8);
        total[c][e] += __shfl_xor_sync(kFull, total[c][e], 16);
      }
  }

  // put(query, dim, values[8]): what this lane holds, unnormalised; query = 8 c + 2 t + e.
  template <typename Put>
  __device__ __forceinline__ void give(const Put& put) const {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int c = 0; c < kCols; ++c)
#pragma unroll
      for (int e = 0; e < 2; ++e)
#pragma unroll
        for (int j = 0; j < kVGroups; ++j) {
          float v[8];
#pragma unroll
          for (int d = 0; d < 4; ++d) v[2 * d] = o[c][4 * j + d][e], v[2 * d + 1] = o[c][4 * j + d][2 + e];
          if (kDim % 64 == 0 || 64 * j + 8 * g < kDim) put(c, e, 8 * c + 2 * t + e, 64 * j + 8 * g, v);
        }
  }
};

}  // namespace apr
