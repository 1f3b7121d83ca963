#include "core/plan/architecture.h"

#include <fmt/ranges.h>

#include <array>

#include "core/base/error.h"
#include "core/base/format.h"

namespace apr {

namespace {

constexpr std::array kArchitectures = {
    Architecture{"llama", &build_llama},
    Architecture{"mistral3", &build_mistral3},
    Architecture{"qwen2", &build_qwen2},
    Architecture{"qwen3", &build_qwen3},
};

}  // namespace

std::span<const Architecture> architectures() { return kArchitectures; }

std::vector<std::string_view> known_architectures() {
  std::vector<std::string_view> names;
  names.reserve(kArchitectures.size());
  for (const Architecture& each : kArchitectures) names.push_back(each.name);
  return names;
}

std::unique_ptr<Plan> build_plan(const Model& model, Catalog& catalog, const PlanOptions& options) {
  const std::string& wanted = model.meta.get_string("general.architecture");
  if (model.tensors.empty()) {
    throw Error("{}: the file has no tensors (a vocabulary alone?), so there is nothing to compute",
                model.meta.origin());
  }
  for (const Architecture& each : kArchitectures) {
    if (each.name != wanted) continue;
    PlanBuilder builder(model, catalog, options);
    return each.build(builder, read_hyper_parameters(model.meta, wanted));
  }
  throw Error("{}: architecture '{}' is not known to this program; it knows {}", model.meta.origin(),
              printable(wanted), fmt::join(known_architectures(), ", "));
}

PlanOptions plan_options(const Probes& probes) { return {probes.force_qtype, probes.lm_head_force_qtype}; }

}  // namespace apr
