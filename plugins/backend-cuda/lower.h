// Facts about a plan's dataflow that fusion needs: who makes a value, who reads it, which operations go into one kernel.
// Used by lower.cpp and patterns.cpp alone; program.h has the interface.
#pragma once

#include <cstdint>
#include <vector>

#include "apr/plan.h"
#include "plugins/backend-cuda/program.h"

namespace apr::cuda {

struct Dataflow {
  const apr_plan* plan;
  std::vector<int32_t> producer;  // op of each value, -1: none
  std::vector<std::vector<uint32_t>>
      readers;  // ops of each value, ascending; an op that reads it twice counts twice

  const apr_op& op(int32_t index) const { return *plan->ops[index]; }
  bool is_head(int32_t op_index) const { return static_cast<uint32_t>(op_index) >= plan->head_op; }
  // Nobody else needs the value: it may live in registers.
  bool only_read_by(int32_t value, uint32_t op_index) const {
    return value != plan->logits && readers[static_cast<size_t>(value)].size() == 1 &&
           readers[static_cast<size_t>(value)][0] == op_index;
  }
};

// Checks every index and width of the plan; throws Failure(APR_INVALID or APR_UNSUPPORTED) that names the stage.
Dataflow analyse(const apr_plan& plan);

// Norm and rotation of q and k on their way into attention.
struct AttentionPattern {
  bool found = false;                // false: q and k come ready
  int32_t q, k;                      // values before norm and rotation
  int32_t q_norm = -1, k_norm = -1;  // ops, -1: no norm
  int32_t q_rope = -1, k_rope = -1;  // ops, -1: no rotation
};

// What the operations of a plan are fused into. Indices by op; -1 = not part of such a pattern.
struct Patterns {
  std::vector<int32_t> residual_add;  // of a linear: the add that takes its result
  std::vector<int32_t>
      swiglu;  // of a linear: the swiglu that takes its result and that of a twin on the same input
  std::vector<bool> into_linears;           // of a whole-row norm: all who read its result are linears
  std::vector<AttentionPattern> attention;  // of an attention
  std::vector<bool> absorbed;               // computed by the kernel of another op
};

Patterns find_patterns(const Dataflow& flow, uint32_t m, const LowerOptions& options);

// Which view of a weight a linear's kernel eats, m rows at a time.
View linear_view(const apr_weight& weight, uint32_t m, const LowerOptions& options);

}  // namespace apr::cuda
