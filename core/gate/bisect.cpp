#include "core/gate/bisect.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/base/format.h"

namespace apr {

namespace {

// In the plan's order; prefill before single tokens.
const StageVerdict* earliest(const std::vector<StageVerdict>& stages) {
  const StageVerdict* first = nullptr;
  for (const StageVerdict& v : stages)
    if (!v.pass && (first == nullptr || v.op < first->op)) first = &v;
  return first;
}

std::string quoted_where(const std::vector<std::string>& forms) {
  if (forms.size() != 1) return "as a batch and token by token";
  return forms[0] == to_string(ParityForm::Prefill) ? "as a batch only" : "token by token only";
}

}  // namespace

BisectFinding find_fault(const std::vector<BisectPass>& passes) {
  BisectFinding finding;
  const StageVerdict* first = earliest(passes[0].stages);
  const StageVerdict* separate = passes.size() > 1 ? earliest(passes[1].stages) : nullptr;
  const StageVerdict* exact = passes.size() > 2 ? earliest(passes[2].stages) : nullptr;
  const BisectPass* pass = &passes[0];
  if (first == nullptr && separate == nullptr && exact != nullptr) {
    finding.result = exact->group.size() > 1 ? BisectResult::Group : BisectResult::Stage;
    finding.verdict = *exact, pass = &passes[2];
  } else if (first == nullptr && separate == nullptr) {
    finding.text = "every stage is what its inputs make it";
    return finding;
  }
  const bool grouped = first != nullptr && first->group.size() > 1;
  const auto in_group = [&](const StageVerdict* v) {
    return v != nullptr &&
           std::find(first->group.begin(), first->group.end(), v->stage) != first->group.end();
  };
  if (pass == &passes.back() && passes.size() > 2) {
    // Only float activations show it.
  } else if (first == nullptr) {
    finding.result = BisectResult::Separate;
    finding.verdict = *separate, pass = &passes[1];
  } else if (!grouped) {
    finding.result = BisectResult::Stage;
    finding.verdict = *first;
  } else if (in_group(separate)) {
    finding.result = BisectResult::Stage;
    finding.verdict = *separate, pass = &passes[1];
  } else if (in_group(exact) && exact->group.size() < first->group.size()) {
    finding.result = exact->group.size() > 1 ? BisectResult::Group : BisectResult::Stage;
    finding.verdict = *exact, pass = &passes[2];
  } else {
    finding.result = BisectResult::Group;
    finding.verdict = *first;
  }
  // A stage that one form fused away is seen in the other passes.
  for (const ParityForm form : {ParityForm::Prefill, ParityForm::Mixed}) {
    const auto fails = [&](const BisectPass& p) {
      return std::any_of(p.stages.begin(), p.stages.end(), [&](const StageVerdict& v) {
        return !v.pass && v.form == form && v.op == finding.verdict.op;
      });
    };
    if (std::any_of(passes.begin(), passes.end(), fails)) finding.forms.emplace_back(to_string(form));
  }
  for (const StageVerdict& v : pass->stages) {
    if (v.pass || v.op == finding.verdict.op) continue;
    if (std::find(finding.also.begin(), finding.also.end(), v.stage) == finding.also.end())
      finding.also.push_back(v.stage);
  }
  const std::string what = describe(finding.verdict), where = quoted_where(finding.forms);
  switch (finding.result) {
    case BisectResult::Nothing:
      break;
    case BisectResult::Stage:
      finding.text = fmt::format("the first faulty stage: {} ({})", what, where);
      break;
    case BisectResult::Group:
      finding.text = fmt::format(
          "the fault is in the fused kernels of {} ({}): {}{}", joined(finding.verdict.group), where, what,
          passes.size() > 1 && separate == nullptr ? "; with a kernel for each of them all are right" : "");
      break;
    case BisectResult::Separate:
      finding.text = fmt::format("only kernels that run with fusion off are at fault: {} ({})", what, where);
      break;
  }
  return finding;
}

}  // namespace apr
