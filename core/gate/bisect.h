// From verdicts on stages to the one at fault. A backend is judged as it runs, and where it fused stages
// away, once more with a kernel for each operation: the first pass finds the group, the second the stage.
// Where the fault is in a fused kernel itself, a third pass, with float activations, has smaller groups and
// much smaller bounds, since nothing is rounded to 8 bits on its way through a kernel.
#pragma once

#include <string>
#include <vector>

#include "core/gate/stage_check.h"

namespace apr {

struct BisectPass {
  std::string what;                  // "as it runs", "unfused", "float activations"
  std::vector<StageVerdict> stages;  // of both forms
};

enum class BisectResult {
  Nothing,   // every stage is what its inputs make it
  Stage,     // one stage is at fault
  Group,     // a fused kernel is: the kernels of its operations, run one by one, are right
  Separate,  // kernels of single operations are, and the fused ones that run by default are right
};

struct BisectFinding {
  BisectResult result = BisectResult::Nothing;
  StageVerdict verdict;            // the first failure, most exact: unset for Nothing
  std::vector<std::string> forms;  // "prefill", "mixed": in which it fails
  std::vector<std::string> also;   // later stages that fail by themselves, in the plan's order
  std::string text;                // one sentence
};

// passes: one; or the unfused one as the second; or that with float activations, fused, as the third.
BisectFinding find_fault(const std::vector<BisectPass>& passes);

}  // namespace apr
