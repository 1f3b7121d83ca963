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
ahead = { values = [0, 4, 8, 12, 16, 24, 32], default = 4, meaning = "MiB of the next kernels' weights that CTAs without positions ask the L2 for" }
*/
#include "tile_activation.h"
#include "tile_attention.h"
#include "tile_rope.h"

namespace apr::spec {
constexpr int kGroup = kHeads / kKvHeads;   // query heads of a KV head
constexpr int kSide = ceil_div(kGroup, 8);  // CTAs that share a KV head, 8 query heads each
constexpr int kThreads = warps * kWarp;
constexpr int kSplits = max_of(1, kSms / (kKvHeads * kSide));
constexpr int kRound = warps * tiles * 16;        // positions that a CTA takes at once
constexpr bool kAhead = tiles * kHeadDim <= 128;  // registers hold two rounds
constexpr int kPartial = kHeadDim + 2;            // floats of a split: output, largest, total
constexpr int kCounters = round_up(kM * kKvHeads * kSide, 64);
static_assert(kHeads % kKvHeads == 0, "query heads are a multiple of KV heads");
static_assert(kOutput == kOutputFloat || (kOutput == kOutputInt8 && kGroup * kHeadDim % kActBlock == 0),
              "int8 output needs whole blocks in a KV head");
static_assert(!kFused || kM == 1,
              "the fused form serves one token: rows of one sequence would wait for each other's k and v");

struct Shared {
  alignas(16) float q[8][kHeadDim];
  alignas(16) uint16_t k[kHeadDim];  // of the new position, as stored
  alignas(16) uint16_t v[kHeadDim];
  float largest[warps][8], total[warps][8];
  alignas(16) float o[warps][8][kHeadDim];
  float weight[8][kSplits];
  int last;
};
}  // namespace apr::spec

APR_LAUNCH = apr::launch_shape(
    apr::spec::kKvHeads * apr::spec::kSide, apr::spec::kSplits, apr::spec::kM, apr::spec::kThreads,
    sizeof(apr::spec::Shared), 0, apr::kLaunchPdl, 1,
    4 * (apr::spec::kCounters + apr::spec::kM * apr::spec::kHeads * apr::spec::kSplits * apr::spec::kPartial),
    apr::spec::ahead << 20);

APR_KERNEL(apr::AttentionArgs, apr::spec::kThreads, 1) {
  using namespace apr;
  using namespace apr::spec;
  using Warp = AttentionWarp<kHeadDim, 1, terms>;
  extern __shared__ __align__(16) uint8_t memory[];
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  APR_MARK(0);
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
  if (split >= splits) {
    // Attention to a short context is a chain of latencies in a few CTAs, and memory would idle meanwhile.
    if (ahead > 0 && row == 0)
      ask_ahead<kThreads>(args.ahead, (split - splits) * gridDim.x + blockIdx.x,
                          (gridDim.y - splits) * gridDim.x);
    return;
  }
  const int from = begin + split * per_split, to = min(from + per_split, position + 1);
  const uint64_t cache = (static_cast<uint64_t>(sequence) * kKvHeads + kv_head) * args.n_ctx * kHeadDim;

  // The new row is not in the cache yet when fused; it is put in from shared memory.
  const int stored = kFused ? min(to, position) : to;
  typename Warp::TileK k[tiles];
  typename Warp::TileV v[tiles];
  const int mine = from + warp * tiles * 16;
  const auto fetch = [&](int p) {
#pragma unroll
    for (int i = 0; i < tiles; ++i) {
      Warp::fetch_k(k[i], args.k_cache + cache, p + 16 * i, stored);
      Warp::fetch_v(v[i], args.v_cache + cache, p + 16 * i, stored);
    }
  };
  if constexpr (kFused) fetch(mine);  // what is there already can be fetched before the new q, k and v exist
  RopeAngles<kRopeKind, kRopeDims> angles;
  if constexpr (kFused) angles.set(args.inv_freq, position);
  APR_MARK(1);
  pdl_wait();
  pdl_launch();
  APR_MARK(2);

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
        prepare_head<kHeadDim, kQkNorm, kRopeKind, kRopeDims>(q, args.q_norm, args.eps, angles,
                                                              args.rope_scale, put);
      } else {
        for (int d = lane; d < kHeadDim; d += kWarp) put(d, q[d]);
      }
    } else if (work == 8) {
      uint16_t* out = args.k_cache + cache + static_cast<uint64_t>(position) * kHeadDim;
      prepare_head<kHeadDim, kQkNorm, kRopeKind, kRopeDims>(
          args.k + static_cast<uint64_t>(row) * args.k_stride + kv_head * kHeadDim, args.k_norm, args.eps,
          angles, args.rope_scale, [&](int d, float value) {
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
  APR_MARK(3);
  __syncthreads();
  APR_MARK(4);

  Warp state;
  state.clear();
  state.set_queries([&](int query, int dim, float(&out)[8]) {
    const float4 a = load4(&shared.q[query][dim]), b = load4(&shared.q[query][dim + 4]);
    out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w, out[4] = b.x, out[5] = b.y, out[6] = b.z,
    out[7] = b.w;
  });
  const auto seen = [&](int, int, int p) { return p < to; };
  // A round is fetched while the one before is worked on.
  if (!kFused && mine < to) fetch(mine);
  for (int p = mine; p < to; p += kRound) {
    typename Warp::TileK k_now[tiles];
    typename Warp::TileV v_now[tiles];
#pragma unroll
    for (int i = 0; i < tiles; ++i) k_now[i] = k[i], v_now[i] = v[i];
    if (kAhead && p + kRound < to) fetch(p + kRound);
    if (owns_new && position >= p && position < p + 16 * tiles) {
#pragma unroll
      for (int i = 0; i < tiles; ++i)
        Warp::insert(k_now[i], v_now[i], position - p - 16 * i, shared.k, shared.v);
    }
    state.attend(k_now, v_now, p, seen);
    if (!kAhead && p + kRound < to) fetch(p + kRound);
  }
  state.finish();
  APR_MARK(5);

  // The CTA's warps meet in shared memory: those that had positions.
  const int busy = min(warps, ceil_div(to - from, tiles * 16));
  if (lane / 4 == 0) {
#pragma unroll
    for (int e = 0; e < 2; ++e)
      shared.largest[warp][2 * lane + e] = state.largest[0][e],
                                      shared.total[warp][2 * lane + e] = state.total[0][e];
  }
  if (warp < busy) {
    state.give([&](int, int, int query, int dim, const float(&value)[8]) {
      *reinterpret_cast<float4*>(&shared.o[warp][query][dim]) = {value[0], value[1], value[2], value[3]};
      *reinterpret_cast<float4*>(&shared.o[warp][query][dim + 4]) = {value[4], value[5], value[6], value[7]};
    });
  }
  __syncthreads();
  // Four elements from i on of this CTA's heads; every lane of the warp calls, those without elements with
  // some = false.
  const auto emit = [&](int i, bool some, const float4& value) {
    if constexpr (spec::kOutput == kOutputInt8) {
      float scale, sum;
      const uint32_t quad = quantize_quad(value, scale, sum);
      if (!some) return;
      const uint64_t at = static_cast<uint64_t>(row) * kHeads * kHeadDim + first_head * kHeadDim + i;
      *reinterpret_cast<uint32_t*>(args.outq.q + at) = quad;
      if (i % kActBlock == 0) args.outq.scale[at / kActBlock] = scale, args.outq.sum[at / kActBlock] = sum;
    } else if (some) {
      *reinterpret_cast<float4*>(args.out + static_cast<uint64_t>(row) * args.out_stride +
                                 first_head * kHeadDim + i) = value;
    }
  };
  int* counters = static_cast<int*>(args.scratch);
  float* partials = reinterpret_cast<float*>(counters + kCounters);  // [row][head][split][kHeadDim]
  float2* extents = reinterpret_cast<float2*>(partials + kM * kHeads * kSplits *
                                                             kHeadDim);  // [row][head][split]: largest, total
  const int first_partial = (row * kHeads + first_head) * kSplits;
  const int elements = heads * kHeadDim;
  for (int base = 4 * kWarp * warp; base < elements; base += 4 * kThreads) {
    const int i = base + 4 * lane, head = min(i / kHeadDim, 7), dim = i % kHeadDim;
    const bool some = i < elements;
    float weight[warps], top = shared.largest[0][head], sum = 0.0f;
#pragma unroll
    for (int w = 1; w < warps; ++w) top = fmaxf(top, shared.largest[w][head]);  // of an idle warp: the floor
    float4 value = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int w = 0; w < warps; ++w) {
      weight[w] = exp2f(shared.largest[w][head] - top);
      sum += weight[w] * shared.total[w][head];
      if (w < busy) {
        const float4 o = load4(&shared.o[w][head][dim]);
        value.x += weight[w] * o.x, value.y += weight[w] * o.y, value.z += weight[w] * o.z,
            value.w += weight[w] * o.w;
      }
    }
    if (splits == 1) {
      const float inverse = 1.0f / sum;
      emit(i, some, {value.x * inverse, value.y * inverse, value.z * inverse, value.w * inverse});
    } else if (some) {
      const int partial = first_partial + head * kSplits + split;
      *reinterpret_cast<float4*>(partials + static_cast<uint64_t>(partial) * kHeadDim + dim) = value;
      if (dim == 0) extents[partial] = {top, sum};
    }
  }
  APR_MARK(6);
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
  // Weights of the splits, a warp for each head.
  for (int head = warp; head < heads; head += warps) {
    float2 mine[ceil_div(kSplits, kWarp)];
    float top = -3.0e38f, sum = 0.0f;
#pragma unroll
    for (int n = 0; n < ceil_div(kSplits, kWarp); ++n) {
      const int s = n * kWarp + lane;
      mine[n] = s < splits ? __ldcg(extents + first_partial + head * kSplits + s) : float2{-3.0e38f, 0.0f};
      top = fmaxf(top, mine[n].x);
    }
    top = warp_max(top);
#pragma unroll
    for (int n = 0; n < ceil_div(kSplits, kWarp); ++n)
      mine[n].x = exp2f(mine[n].x - top), sum += mine[n].x * mine[n].y;
    sum = 1.0f / warp_sum(sum);
#pragma unroll
    for (int n = 0; n < ceil_div(kSplits, kWarp); ++n)
      if (n * kWarp + lane < kSplits) shared.weight[head][n * kWarp + lane] = mine[n].x * sum;
  }
  __syncthreads();
  for (int base = 4 * kWarp * warp; base < elements; base += 4 * kThreads) {
    const int i = base + 4 * lane, head = min(i / kHeadDim, heads - 1), dim = i % kHeadDim;
    const float* partial = partials + static_cast<uint64_t>(first_partial + head * kSplits) * kHeadDim + dim;
    float4 value = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll 8
    for (int s = 0; s < splits; ++s) {
      const float weight = shared.weight[head][s];
      const float4 o = __ldcg(reinterpret_cast<const float4*>(partial + s * kHeadDim));
      value.x += weight * o.x, value.y += weight * o.y, value.z += weight * o.z, value.w += weight * o.w;
    }
    emit(i, i < elements, value);
  }
}
