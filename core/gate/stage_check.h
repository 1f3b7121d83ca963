// Judges every stage of a backend by its own inputs: what the backend reported for a stage is compared with
// the plan's definition of it (core/gate/definition.h), computed from what the same backend reported before.
// Errors of earlier stages are in both sides of that comparison, so the stage that fails is the one at fault,
// and the bound is one stage's rounding however deep the model is.
//
// Stages that a backend fused away are computed from the nearest reported ones; the verdict then names the
// whole group.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/gate/parity.h"

namespace apr {

struct StageCheckOptions {
  bool precise = false;  // the session was loaded so: no 8-bit activations
  // Rows of W that are judged of each matrix, 0: all. Some tell a wrong kernel from a right one; all of them
  // find a single bad row.
  uint32_t columns = 0;
  uint32_t positions = 3;                       // judged, of each form
  std::function<bool(const apr_op&)> selected;  // stages that are judged; empty: all
  std::function<void(const char* stage, uint32_t done, uint32_t total)> progress;  // [nullable]
};

// The stages that a quick check needs: those outside the layers, and the first layer of each kind (formats
// and shapes of its operations) and the last one.
std::function<bool(const apr_op&)> representative_stages(const apr_plan& plan);

// Feeds the tokens to sequence 0 as one batch (Prefill), or half of them as one batch and the rest one by one
// (Mixed), with a tap, after other tokens have been at the same positions. Verdicts in the plan's order.
// Throws apr::Error with the backend's message.
std::vector<StageVerdict> check_stages(const ParitySide& side, const apr_plan& plan,
                                       const std::vector<int32_t>& tokens, ParityForm form,
                                       const StageCheckOptions& options);

// null when all pass.
const StageVerdict* first_failure(const std::vector<StageVerdict>& stages);
// Stages of the plan that none of the verdicts is about.
std::vector<std::string> unseen_stages(const apr_plan& plan, const std::vector<StageVerdict>& stages);

// "blk.0.ffn_down (q4_k) is not what its inputs make it: 31% off where 2.1% is rounding; looks like: ..."
std::string describe(const StageVerdict& verdict);

}  // namespace apr
