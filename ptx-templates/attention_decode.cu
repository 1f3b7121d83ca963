/*
name = "attention_decode"
op = "attention"
view = "none"
m = [1, 8]
layouts = []
arch = 80
features = []
summary = "Attention for a few tokens: the context split over CTAs, which meet in the last one to finish; norm, rotation and KV append inside when fused"
[params]
warps = { values = [2, 4, 8], default = 8, meaning = "warps of a CTA: each takes its own positions" }
tiles = { values = [1, 2], default = 1, meaning = "tiles of 16 positions that a warp works on at once" }
least = { values = [128, 256, 512, 1024], default = 256, meaning = "positions below which the context is not split further" }
terms = { values = [1, 2], default = 2, meaning = "f16 terms of q and p: 2 = as exact as the cache" }
*/
#include "tile_attention.h"
#include "tile_rope.h"

namespace apr::spec {
constexpr int kGroup = kHeads / kKvHeads;               // query heads of a KV head
constexpr int kSide = ceil_div(kGroup, 8);              // CTAs that share a KV head, 8 query heads each
constexpr int kThreads = warps * kWarp;
constexpr int kSplits = max_of(1, kSms / (kKvHeads * kSide));
constexpr int kRound = warps * tiles * 16;              // positions that a CTA takes at once
constexpr int kPartial = kHeadDim + 2;                  // output, largest, total
constexpr int kCounters = round_up(kM * kKvHeads * kSide, 64);
static_assert(kHeads % kKvHeads == 0, "query heads are a multiple of KV heads");
static_assert(!kFused || kM == 1, "the fused form serves one token: rows of one sequence would wait for each other's k and v");

struct Shared {
  float q[8][kHeadDim];
  uint16_t k[kHeadDim], v[kHeadDim];  // of the new position, as stored
  float largest[warps][8], total[warps][8];
  float o[warps][8][kHeadDim];
  int last;
};
}  // namespace apr::spec

APR_LAUNCH = apr::launch_shape(apr::spec::kKvHeads * apr::spec::kSide, apr::spec::kSplits, apr::spec::kM, apr::spec::kThreads,
                               sizeof(apr::spec::Shared), 0, apr::kLaunchPdl, 1,
                               4 * (apr::spec::kCounters + apr::spec::kM * apr::spec::kHeads * apr::spec::kSplits * apr::spec::kPartial));

APR_KERNEL(apr::AttentionArgs, apr::spec::kThreads, 1) {
  using namespace apr;
  using namespace apr::spec;
  using Warp = AttentionWarp<kHeadDim, 1, terms>;
  extern __shared__ __align__(16) uint8_t memory[];
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  const int row = blockIdx.z, kv_head = blockIdx.x / kSide, side = blockIdx.x % kSide;
  const int first_head = kv_head * kGroup + 8 * side, heads = min(8, kGroup - 8 * side);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  // Nothing before pdl_wait may depend on a kernel of this step: positions and old cache rows do not.
  if constexpr (kM > 1)
    if (row >= args.state->m) return;
  const int position = args.positions[row], sequence = args.sequences[row];
  const int begin = kWindow > 0 ? max(0, position + 1 - kWindow) : 0;
  const int length = position + 1 - begin;
  // Each split has at least `least` positions, in whole rounds.
  const int per_split = max(ceil_div(ceil_div(length, kSplits), kRound) * kRound, least);
  const int splits = ceil_div(length, per_split), split = blockIdx.y;
  if (split >= splits) return;
  const int from = begin + split * per_split, to = min(from + per_split, position + 1);
  const uint64_t cache = (static_cast<uint64_t>(sequence) * kKvHeads + kv_head) * args.n_ctx * kHeadDim;

  const auto load_from = [&](const uint16_t* base, const uint16_t* fresh) {
    return [=](int p, int dim) -> U4 {
      if (p >= to) return {0, 0, 0, 0};  // the cache holds anything there, and 0 * NaN is NaN
      if (kFused && p == position) return *reinterpret_cast<const U4*>(fresh + dim);
      return load_cache(base + static_cast<uint64_t>(p) * kHeadDim + dim);
    };
  };
  const auto load_k = load_from(args.k_cache + cache, shared.k), load_v = load_from(args.v_cache + cache, shared.v);
  // What is there already can be fetched before the new q, k and v exist; the new row is taken afterwards.
  const auto load_old = [&](const uint16_t* base) {
    return [=](int p, int dim) -> U4 {
      if (p >= min(to, position)) return {0, 0, 0, 0};
      return load_cache(base + static_cast<uint64_t>(p) * kHeadDim + dim);
    };
  };

  typename Warp::TileK k[tiles];
  typename Warp::TileV v[tiles];
  const int mine = from + warp * tiles * 16;
  if constexpr (kFused) {
#pragma unroll
    for (int i = 0; i < tiles; ++i) {
      Warp::fetch_k(k[i], mine + 16 * i, load_old(args.k_cache + cache));
      Warp::fetch_v(v[i], mine + 16 * i, load_old(args.v_cache + cache));
    }
  }
  pdl_wait();
  pdl_launch();

  const float to_log2 = args.scale * 1.44269504088896340736f;
  const bool owns_new = kFused && split == splits - 1;
  for (int work = warp; work < 8 + (owns_new ? 2 : 0); work += warps) {
    if (work < 8) {
      if (work >= heads) {
        for (int d = lane; d < kHeadDim; d += kWarp) shared.q[work][d] = 0.0f;
        continue;
      }
      const float* q = args.q + static_cast<uint64_t>(row) * args.q_stride + (first_head + work) * kHeadDim;
      const auto put = [&](int d, float value) { shared.q[work][d] = value * to_log2; };
      if constexpr (kFused) {
        prepare_head<kHeadDim, kQkNorm, kRopeKind, kRopeDims>(q, args.q_norm, args.eps, args.inv_freq, args.rope_scale, position, put);
      } else {
        for (int d = lane; d < kHeadDim; d += kWarp) put(d, q[d]);
      }
    } else if (work == 8) {
      uint16_t* out = args.k_cache + cache + static_cast<uint64_t>(position) * kHeadDim;
      prepare_head<kHeadDim, kQkNorm, kRopeKind, kRopeDims>(
          args.k + static_cast<uint64_t>(row) * args.k_stride + kv_head * kHeadDim, args.k_norm, args.eps, args.inv_freq,
          args.rope_scale, position, [&](int d, float value) {
            const uint16_t half = to_f16(value);
            shared.k[d] = half;
            if (side == 0) out[d] = half;
          });
    } else {
      const float* in = args.v + static_cast<uint64_t>(row) * args.v_stride + kv_head * kHeadDim;
      uint16_t* out = args.v_cache + cache + static_cast<uint64_t>(position) * kHeadDim;
      for (int d = lane; d < kHeadDim; d += kWarp) {
        const uint16_t half = to_f16(in[d]);
        shared.v[d] = half;
        if (side == 0) out[d] = half;
      }
    }
  }
  __syncthreads();

  Warp state;
  state.clear();
  state.set_queries([&](int query, int dim, float (&out)[8]) {
    const float4 a = load4(&shared.q[query][dim]), b = load4(&shared.q[query][dim + 4]);
    out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w, out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
  });
  const auto seen = [&](int, int, int p) { return p < to; };
  for (int p = mine; p < to; p += kRound) {
    // The first round was fetched early unless it contains the new row.
    if (!kFused || p != mine || (position >= p && position < p + tiles * 16)) {
#pragma unroll
      for (int i = 0; i < tiles; ++i) {
        Warp::fetch_k(k[i], p + 16 * i, load_k);
        Warp::fetch_v(v[i], p + 16 * i, load_v);
      }
    }
    state.attend(k, v, p, seen);
  }
  state.finish();

  // The CTA's warps meet in shared memory.
  {
    const int g = lane / 4, t = lane % 4;
    if (g == 0) {
#pragma unroll
      for (int e = 0; e < 2; ++e) shared.largest[warp][2 * t + e] = state.largest[0][e], shared.total[warp][2 * t + e] = state.total[0][e];
    }
    state.give([&](int, int, int query, int dim, const float (&value)[8]) {
      *reinterpret_cast<float4*>(&shared.o[warp][query][dim]) = {value[0], value[1], value[2], value[3]};
      *reinterpret_cast<float4*>(&shared.o[warp][query][dim + 4]) = {value[4], value[5], value[6], value[7]};
    });
  }
  __syncthreads();
  int* counters = static_cast<int*>(args.scratch);
  float* partials = reinterpret_cast<float*>(counters + kCounters);
  for (int i = threadIdx.x; i < heads * kHeadDim; i += kThreads) {
    const int head = i / kHeadDim, dim = i % kHeadDim;
    float top = shared.largest[0][head];
#pragma unroll
    for (int w = 1; w < warps; ++w) top = fmaxf(top, shared.largest[w][head]);
    float sum = 0.0f, value = 0.0f;
#pragma unroll
    for (int w = 0; w < warps; ++w) {
      const float weight = exp2f(shared.largest[w][head] - top);
      sum += weight * shared.total[w][head];
      value += weight * shared.o[w][head][dim];
    }
    if (splits == 1) {
      args.out[static_cast<uint64_t>(row) * args.out_stride + (first_head + head) * kHeadDim + dim] = value / sum;
    } else {
      float* partial = partials + ((static_cast<uint64_t>(row) * kHeads + first_head + head) * kSplits + split) * kPartial;
      partial[dim] = value;
      if (dim == 0) partial[kHeadDim] = top, partial[kHeadDim + 1] = sum;
    }
  }
  if (splits == 1) return;

  // The CTAs of a head meet in the last one to arrive.
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    int* counter = counters + row * kKvHeads * kSide + blockIdx.x;
    shared.last = atomicAdd(counter, 1) == splits - 1;
    if (shared.last) *counter = 0;
  }
  __syncthreads();
  if (!shared.last) return;
  __threadfence();
  for (int i = threadIdx.x; i < heads * kHeadDim; i += kThreads) {
    const int head = i / kHeadDim, dim = i % kHeadDim;
    const float* partial = partials + (static_cast<uint64_t>(row) * kHeads + first_head + head) * kSplits * kPartial;
    float top = -3.0e38f;
    for (int s = 0; s < splits; ++s) top = fmaxf(top, __ldcg(partial + s * kPartial + kHeadDim));
    float sum = 0.0f, value = 0.0f;
    for (int s = 0; s < splits; ++s) {
      const float weight = exp2f(__ldcg(partial + s * kPartial + kHeadDim) - top);
      sum += weight * __ldcg(partial + s * kPartial + kHeadDim + 1);
      value += weight * __ldcg(partial + s * kPartial + dim);
    }
    args.out[static_cast<uint64_t>(row) * args.out_stride + (first_head + head) * kHeadDim + dim] = value / sum;
  }
}
