#include "attention.h"

#include <algorithm>
#include <cstring>

namespace apr::cpu {

AttentionWorkspace::AttentionWorkspace(uint32_t query_rows, uint32_t padded) {
  Layout l;
  const uint64_t matrix = uint64_t{query_rows} * padded * 4, column = uint64_t{query_rows} * 4;
  const uint64_t at_q = l.add(matrix), at_o = l.add(matrix), at_total = l.add(matrix);
  const uint64_t at_max = l.add(column), at_sum = l.add(column), at_total_max = l.add(column),
                 at_total_sum = l.add(column);
  const uint64_t at_first = l.add(column), at_last = l.add(column);
  const uint64_t at_tile = l.add(uint64_t{2} * kTileKeys * padded * 4),
                 at_score = l.add(kScoreRows * kTileKeys * 4);
  const uint64_t at_lanes = l.add(uint64_t{query_rows} * kLanes * 4);
  memory_ = Memory(l.bytes(), "a thread's workspace");
  q = memory_.as<float>(at_q), o = memory_.as<float>(at_o), total = memory_.as<float>(at_total);
  max = memory_.as<float>(at_max), sum = memory_.as<float>(at_sum);
  total_max = memory_.as<float>(at_total_max), total_sum = memory_.as<float>(at_total_sum);
  first = memory_.as<int32_t>(at_first), last = memory_.as<int32_t>(at_last);
  tile = memory_.as<float>(at_tile), score = memory_.as<float>(at_score), lanes = memory_.as<float>(at_lanes);
}

AttentionPartials::AttentionPartials(const Program& program, uint32_t n_ctx, uint32_t n_batch) {
  most_chunks = (n_ctx + kChunkKeys - 1) / kChunkKeys;
  uint64_t results_bytes = 0, counters = 0;
  const uint64_t tokens = std::min(kSplitTokens, n_batch);
  for (const auto& s : program.shapes) {
    results_bytes =
        std::max(results_bytes, tokens * most_chunks * s->kv_heads * s->group * (program.padded + 2) * 4);
    counters = std::max(counters, tokens * s->kv_heads);
  }
  memory_ = Memory(results_bytes, "partial results of attention");
  results = memory_.as<float>();
  done = std::make_unique<std::atomic<uint32_t>[]>(counters);
  for (uint64_t i = 0; i < counters; ++i) done[i].store(0, std::memory_order_relaxed);
}

namespace {

uint32_t chunks_of(int32_t position) { return static_cast<uint32_t>(position) / kChunkKeys + 1; }

// The part of a chunk that a row may see, for all query rows of a task.
AttendChunk prepare(const AttentionOp& op, const StepState& state, AttentionWorkspace& ws,
                    const TokenBlock& block, uint32_t kv_head) {
  const KvCache& kv = *op.kv;
  const uint32_t group = op.shape->group, padded = kv.padded;
  uint32_t r = 0;
  for (uint32_t t = 0; t < block.count; ++t) {
    const uint32_t row = state.order[block.begin + t];
    const int32_t position = state.positions[row];
    const float* q = state.in(op.q, row) + uint64_t{kv_head} * group * kv.head_dim;
    for (uint32_t g = 0; g < group; ++g, ++r, q += kv.head_dim) {
      float* to = ws.q + r * padded;
      for (uint32_t d = 0; d < kv.head_dim; ++d) to[d] = q[d] * op.scale;
      ws.last[r] = position;
      ws.first[r] = op.window > 0 && static_cast<uint32_t>(position) >= op.window
                        ? position - static_cast<int32_t>(op.window) + 1
                        : 0;
    }
  }
  const auto sequence = static_cast<uint32_t>(state.sequences[state.order[block.begin]]);
  AttendChunk c{};
  c.rows = r;
  c.head_dim = kv.head_dim;
  c.padded = padded;
  c.half = kv.element_bytes == 2;
  c.k = kv.keys(sequence, kv_head);
  c.v = kv.values(sequence, kv_head);
  c.first = ws.first;
  c.last = ws.last;
  c.q = ws.q;
  c.tile = ws.tile;
  c.score = ws.score;
  c.lanes = ws.lanes;
  c.o = ws.o;
  c.max = ws.max;
  c.sum = ws.sum;
  return c;
}

// Tiles that no row of the task sees are left out at both ends; the rest keeps its place, so that results do not change.
void bound(AttendChunk& c, uint32_t chunk) {
  int32_t first = c.first[0], last = c.last[0];
  for (uint32_t r = 1; r < c.rows; ++r) first = std::min(first, c.first[r]), last = std::max(last, c.last[r]);
  constexpr auto tile = static_cast<int32_t>(kTileKeys);
  c.begin = std::max(static_cast<int32_t>(chunk * kChunkKeys), first / tile * tile);
  c.end = std::min(static_cast<int32_t>((chunk + 1) * kChunkKeys), last + 1);
  c.stored = last + 1;
}

void whole_context(const AttentionOp& op, const StepState& state, AttentionWorkspace& ws,
                   const TokenBlock& block, uint32_t kv_head) {
  const Kernels& k = *state.kernels;
  AttendChunk c = prepare(op, state, ws, block, kv_head);
  const uint32_t padded = c.padded, head_dim = op.kv->head_dim, group = op.shape->group;
  for (uint32_t r = 0; r < c.rows; ++r) ws.total_max[r] = -__builtin_inff(), ws.total_sum[r] = 0.0f;
  std::memset(ws.total, 0, sizeof(float) * c.rows * padded);
  const uint32_t chunks = chunks_of(c.last[c.rows - 1]);  // tokens of a block have ascending positions
  for (uint32_t chunk = static_cast<uint32_t>(c.first[0]) / kChunkKeys; chunk < chunks; ++chunk) {
    bound(c, chunk);
    k.attend(c);
    for (uint32_t r = 0; r < c.rows; ++r)
      k.attend_join(ws.o + r * padded, ws.max[r], ws.sum[r], padded, ws.total + r * padded, ws.total_max + r,
                    ws.total_sum + r);
  }
  for (uint32_t r = 0; r < c.rows; ++r) {
    float* y = out_row(*op.out, state.order[block.begin + r / group]);
    k.attend_finish(ws.total + r * padded, ws.total_sum[r], head_dim,
                    y + (uint64_t{kv_head} * group + r % group) * head_dim);
  }
}

void one_chunk(const AttentionOp& op, const StepState& state, AttentionWorkspace& ws,
               AttentionPartials& partials, uint64_t task) {
  const AttentionShape& shape = *op.shape;
  const Kernels& k = *state.kernels;
  auto it = std::upper_bound(shape.blocks.begin(), shape.blocks.end(), task,
                             [](uint64_t t, const TokenBlock& b) { return t < b.first_task; });
  const TokenBlock& block = *--it;
  const auto index = static_cast<uint32_t>(it - shape.blocks.begin());
  const uint32_t row = state.order[block.begin], chunks = chunks_of(state.positions[row]);
  const auto kv_head = static_cast<uint32_t>((task - block.first_task) / chunks);
  const auto chunk = static_cast<uint32_t>((task - block.first_task) % chunks);
  const uint32_t group = shape.group, padded = op.kv->padded, head_dim = op.kv->head_dim;

  AttendChunk c = prepare(op, state, ws, block, kv_head);
  bound(c, chunk);
  // Results of a token and KV head lie chunk after chunk.
  const uint64_t size = uint64_t{group} * (padded + 2);
  float* result = partials.results + task * size;
  c.o = result;
  c.max = result + uint64_t{group} * padded;
  c.sum = c.max + group;
  k.attend(c);

  std::atomic<uint32_t>& done = partials.done[index * shape.kv_heads + kv_head];
  if (done.fetch_add(1, std::memory_order_acq_rel) + 1 < chunks) return;
  done.store(0, std::memory_order_relaxed);
  const float* first = partials.results + (task - chunk) * size;
  const auto from = static_cast<uint32_t>(c.first[0]) / kChunkKeys;
  for (uint32_t g = 0; g < group; ++g) {
    float *o = ws.total, max = -__builtin_inff(), sum = 0.0f;
    std::memset(o, 0, sizeof(float) * padded);
    for (uint32_t i = from; i < chunks; ++i) {
      const float* part = first + i * size;
      k.attend_join(part + g * padded, part[group * padded + g], part[group * padded + group + g], padded, o,
                    &max, &sum);
    }
    k.attend_finish(o, sum, head_dim, out_row(*op.out, row) + (uint64_t{kv_head} * group + g) * head_dim);
  }
}

}  // namespace

void cut(AttentionShape& shape, const StepState& state, uint32_t threads) {
  const auto blocks_of = [&](uint32_t tokens) {
    shape.blocks.clear();
    for (uint32_t i = 0; i < state.rows;) {
      const int32_t sequence = state.sequences[state.order[i]];
      uint32_t n = 1;
      while (n < tokens && i + n < state.rows && state.sequences[state.order[i + n]] == sequence) ++n;
      shape.blocks.push_back({i, n, 0});
      i += n;
    }
  };
  blocks_of(std::max(1u, kBlockQueries / shape.group));
  shape.tasks = shape.blocks.size() * shape.kv_heads;
  shape.split = state.rows <= kSplitTokens && threads > 1 && shape.tasks < 4 * threads;
  if (!shape.split) return;
  blocks_of(1);
  shape.tasks = 0;
  for (TokenBlock& b : shape.blocks) {
    b.first_task = shape.tasks;
    shape.tasks += uint64_t{shape.kv_heads} * chunks_of(state.positions[state.order[b.begin]]);
  }
}

void run_attention(const AttentionOp& op, const StepState& state, AttentionWorkspace& ws,
                   AttentionPartials& partials, uint64_t task) {
  if (op.shape->split) return one_chunk(op, state, ws, partials, task);
  // Later tokens see more: they come first, so that a long task does not begin when others end.
  const uint64_t blocks = op.shape->blocks.size();
  const TokenBlock& block = op.shape->blocks[blocks - 1 - task / op.shape->kv_heads];
  whole_context(op, state, ws, block, static_cast<uint32_t>(task % op.shape->kv_heads));
}

}  // namespace apr::cpu
