// Attention phases: how a batch is cut into tasks, and a task's work.
#pragma once

#include <atomic>

#include "step.h"

namespace apr::cpu {

// One thread's memory.
class AttentionWorkspace {
 public:
  AttentionWorkspace(uint32_t query_rows, uint32_t padded);
  float *q, *o, *total;                      // [query_rows][padded]
  float *max, *sum, *total_max, *total_sum;  // [query_rows]
  int32_t *first, *last;                     // [query_rows]
  float *tile, *score, *lanes;
  uint64_t bytes() const { return memory_.bytes(); }

 private:
  Memory memory_;
};

// Results of chunks that are tasks of their own, until the last one of a token and KV head joins them.
class AttentionPartials {
 public:
  AttentionPartials(const Program& program, uint32_t n_ctx, uint32_t n_batch);
  uint64_t bytes() const { return memory_.bytes(); }

  uint32_t most_chunks = 0;
  float* results = nullptr;                       // [tasks][group][padded + 2]: o, max, sum
  std::unique_ptr<std::atomic<uint32_t>[]> done;  // [kSplitTokens * kv_heads], 0 between steps

 private:
  Memory memory_;
};

// Cuts the step's tokens into blocks of one sequence. Chunks become tasks when blocks alone would not keep `threads` busy.
void cut(AttentionShape& shape, const StepState& state, uint32_t threads);

void run_attention(const AttentionOp& op, const StepState& state, AttentionWorkspace& workspace,
                   AttentionPartials& partials, uint64_t task);

}  // namespace apr::cpu
