// Checks a plan before anything is made of it: indices, shapes, order.
#pragma once

#include <apr/plan.h>

#include <vector>

namespace apr::cpu {

// The plan's structs in this version's form.
struct CheckedPlan {
  apr_plan plan;
  std::vector<apr_op> ops;
  std::vector<uint32_t> widths;  // of values
  std::vector<apr_vector> vectors;
  std::vector<int32_t> producers;  // of values: index of an op, -1: none
};

// Throws Failure: APR_INVALID for a plan that contradicts itself, APR_UNSUPPORTED for an op kind that this backend does
// not know; both name the stage. Weights are checked by bind_weight; here only their shapes are compared.
CheckedPlan check_plan(const apr_plan* plan);

}  // namespace apr::cpu
