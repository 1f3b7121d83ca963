/*
name = "attention_prompt"
op = "attention"
view = "none"
m = [1, 0]
layouts = []
arch = 80
features = []
summary = "Causal attention for many tokens over the cache, any mix of sequences: a warp has 16 queries of one head"
[params]
warps = { values = [2, 4, 8], default = 4, meaning = "warps of a CTA, 16 tokens each" }
terms = { values = [1, 2], default = 1, meaning = "f16 terms of q and p: 2 = as exact as the cache" }
*/
#include "tile_attention.h"

namespace apr::spec {
constexpr int kGroup = kHeads / kKvHeads;
constexpr int kThreads = warps * kWarp;
static_assert(!kFused, "rotation and KV append are an own kernel for prompts");
}  // namespace apr::spec

// Heads of one KV head are neighbours in x, so that they share its rows in L2.
APR_LAUNCH = apr::launch_shape(apr::spec::kHeads, 1, 1, apr::spec::kThreads, 0, 16 * apr::spec::warps,
                               apr::kLaunchPdl, 1, 0);

APR_KERNEL(apr::AttentionArgs, apr::spec::kThreads, 1) {
  using namespace apr;
  using namespace apr::spec;
  using Warp = AttentionWarp<kHeadDim, 2, terms>;
  pdl_wait();
  pdl_launch();
  const int rows = args.state->m, head = blockIdx.x, kv_head = head / kGroup;
  // Later tokens see more: the longest work goes first.
  const int tile = static_cast<int>(gridDim.y) - 1 - blockIdx.y;
  const int first = (tile * warps + static_cast<int>(threadIdx.x / kWarp)) * 16;
  if (first >= rows) return;
  const int t = threadIdx.x % 4;
  const float to_log2 = args.scale * 1.44269504088896340736f;

  int query_position[2][2], query_sequence[2][2];
#pragma unroll
  for (int c = 0; c < 2; ++c)
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int row = first + 8 * c + 2 * t + e;
      query_position[c][e] = row < rows ? args.positions[row] : -1;
      query_sequence[c][e] = row < rows ? args.sequences[row] : -1;
    }

  Warp state;
  state.clear();
  state.set_queries([&](int query, int dim, float(&out)[8]) {
    const int row = min(first + query, rows - 1);
    const float* q = args.q + static_cast<uint64_t>(row) * args.q_stride + head * kHeadDim + dim;
    const float4 a = load4(q), b = load4(q + 4);
    out[0] = a.x * to_log2, out[1] = a.y * to_log2, out[2] = a.z * to_log2, out[3] = a.w * to_log2;
    out[4] = b.x * to_log2, out[5] = b.y * to_log2, out[6] = b.z * to_log2, out[7] = b.w * to_log2;
  });

  // Rows of one sequence are neighbours with ascending positions; the warp's 16 rows may belong to several
  // sequences.
  for (int row = first; row < min(first + 16, rows);) {
    const int sequence = args.sequences[row];
    const int low = args.positions[row];
    int high = low;
    for (++row; row < min(first + 16, rows) && args.sequences[row] == sequence; ++row)
      high = args.positions[row];
    const int begin = kWindow > 0 ? max(0, low + 1 - kWindow) / 16 * 16 : 0;
    const uint64_t cache = (static_cast<uint64_t>(sequence) * kKvHeads + kv_head) * args.n_ctx * kHeadDim;
    const auto seen = [&](int c, int e, int p) {
      return query_sequence[c][e] == sequence && p <= query_position[c][e] &&
             (kWindow == 0 || p > query_position[c][e] - kWindow);
    };
    for (int p = begin; p <= high; p += 16) {
      typename Warp::TileK k[1];
      typename Warp::TileV v[1];
      Warp::fetch_k(k[0], args.k_cache + cache, p, high + 1);
      Warp::fetch_v(v[0], args.v_cache + cache, p, high + 1);
      state.attend(k, v, p, seen);
    }
  }
  state.finish();
  state.give([&](int c, int e, int query, int dim, const float(&value)[8]) {
    if (first + query >= rows) return;
    const float inverse = 1.0f / state.total[c][e];
    float* out = args.out + static_cast<uint64_t>(first + query) * args.out_stride + head * kHeadDim + dim;
    *reinterpret_cast<float4*>(out) = {value[0] * inverse, value[1] * inverse, value[2] * inverse,
                                       value[3] * inverse};
    *reinterpret_cast<float4*>(out + 4) = {value[4] * inverse, value[5] * inverse, value[6] * inverse,
                                           value[7] * inverse};
  });
}
