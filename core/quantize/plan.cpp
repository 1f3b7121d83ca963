#include "core/quantize/plan.h"

#include <algorithm>
#include <set>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/plan/pack_scaled.h"

namespace apr {

namespace {

WeightQuantType qtype_of(const apr_quant_format& format) {
  return parse_qtype(format.name).value_or(WeightQuantType::Extension);
}

uint64_t packed_bytes(const Tensor& tensor, const apr_quant_format& format) {
  return tensor.n() * (tensor.k() / format.block_elements) * format.block_bytes;
}

// Rows of the first tensor with this role, over layers; 0 when there is none.
uint64_t rows_of_role(const Model& model, std::string_view role) {
  for (const Tensor& tensor : model.tensors)
    if (role_of(tensor.name, {}).role == role) return tensor.n();
  return 0;
}

class Planner {
 public:
  Planner(const Model& model, Catalog& catalog, const Importance* importance, QuantizePlan& plan)
      : model_(model), catalog_(catalog), importance_(importance), plan_(plan) {}

  TensorDecision decide(const Tensor& tensor) {
    TensorDecision decision{};
    decision.tensor = &tensor;
    decision.from = tensor.scales ? &packed_format(tensor, catalog_)
                                  : &catalog_.format(tensor.qtype, tensor.format, tensor.name);
    std::string type = plan_.recipe.vectors;
    decision.why = "vectors";
    if (tensor.dims.size() > 1) {
      const TensorRole role = role_of(tensor.name, plan_.facts);
      type = plan_.recipe.type;
      decision.why = "type";
      for (size_t i = 0; i < plan_.recipe.rules.size(); ++i) {
        const Rule& rule = plan_.recipe.rules[i];
        if (!rule.matches(tensor.name, role, plan_.facts)) continue;
        type = rule.type;
        decision.why = rule.origin;
        used_.insert(i);
        break;
      }
    }
    decision.to = type == kKeepType ? decision.from : fitting(tensor, type, decision);
    decision.to_qtype = qtype_of(*decision.to);
    decision.bytes = packed_bytes(tensor, *decision.to);
    if (importance_ && !decision.copied() && is_quantized(*decision.to))
      decision.importance = importance_->find(tensor);
    return decision;
  }

  bool used(size_t rule) const { return used_.count(rule) != 0; }

 private:
  const apr_quant_format& format(const std::string& type, const TensorDecision& decision) {
    try {
      return catalog_.format(type);
    } catch (const Error& error) {
      throw Error("{}: tensor '{}' by {}: {}", model_.meta.origin(), printable(decision.tensor->name),
                  decision.why, error.what());
    }
  }

  const apr_quant_format* fitting(const Tensor& tensor, std::string type, TensorDecision& decision) {
    std::set<std::string> tried;
    while (true) {
      const apr_quant_format& candidate = format(type, decision);
      if (!candidate.quantize && &candidate != decision.from)
        throw Error("{}: tensor '{}' by {}: format {} can only be read, not written", model_.meta.origin(),
                    printable(tensor.name), decision.why, candidate.name);
      if (tensor.k() % candidate.block_elements == 0) return &candidate;
      decision.fallback += fmt::format("{}{} does not divide {} columns",
                                       decision.fallback.empty() ? "" : ", ", type, tensor.k());
      const std::string* next = plan_.recipe.fallback_of(type);
      if (!next || !tried.insert(type).second)
        throw Error("{}: tensor '{}' by {}: {}, and the recipe declares no fallback that fits",
                    model_.meta.origin(), printable(tensor.name), decision.why, decision.fallback);
      type = *next;
    }
  }

  const Model& model_;
  Catalog& catalog_;
  const Importance* importance_;
  QuantizePlan& plan_;
  std::set<size_t> used_;  // indices of rules that decided something
};

}  // namespace

uint64_t QuantizePlan::bytes() const {
  uint64_t sum = 0;
  for (const TensorDecision& decision : decisions) sum += decision.bytes;
  return sum;
}

std::vector<const TensorDecision*> QuantizePlan::requantized() const {
  std::vector<const TensorDecision*> result;
  for (const TensorDecision& decision : decisions)
    if (!decision.copied() && is_quantized(*decision.from) && is_quantized(*decision.to))
      result.push_back(&decision);
  return result;
}

bool is_quantized(const apr_quant_format& format) {
  return format.block_bytes * 8 < format.block_elements * 16;
}

ModelFacts facts_of(const Model& model, bool with_importance) {
  ModelFacts facts;
  facts.importance = with_importance;
  facts.tied = model.find("output.weight") == nullptr;
  for (const Tensor& tensor : model.tensors)
    if (const auto layer = role_of(tensor.name, {}).layer)
      facts.n_layers = std::max(facts.n_layers, *layer + 1);
  const uint64_t q = rows_of_role(model, "attn_q"), k = rows_of_role(model, "attn_k");
  if (k != 0 && q >= k) facts.gqa = static_cast<uint32_t>(q / k);
  const std::string arch = model.meta.get_string_or("general.architecture", "");
  facts.n_experts = static_cast<uint32_t>(model.meta.get_uint_or(arch + ".expert_count", UINT32_MAX, 0));
  return facts;
}

QuantizePlan plan_quantize(const Model& model, Catalog& catalog, Recipe recipe, size_t own_rules,
                           const Importance* importance) {
  QuantizePlan plan{&model, std::move(recipe), facts_of(model, importance != nullptr), {}, {}};
  Planner planner(model, catalog, importance, plan);
  for (const Tensor& tensor : model.tensors) plan.decisions.push_back(planner.decide(tensor));
  for (size_t i = 0; i < own_rules; ++i)
    if (!planner.used(i)) plan.unmatched.push_back(plan.recipe.rules[i].origin);
  return plan;
}

std::vector<GgufTensor> result_tensors(const QuantizePlan& plan) {
  std::vector<GgufTensor> tensors;
  for (const TensorDecision& decision : plan.decisions)
    tensors.push_back({decision.tensor->name, decision.to_qtype, decision.to->name, decision.tensor->dims,
                       QuantGeometry{decision.to->block_elements, decision.to->block_bytes}});
  return tensors;
}

}  // namespace apr
