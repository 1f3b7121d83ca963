// From a model to a plan: the whole computation of a step as data (include/apr/plan.h), with every weight
// bound to its format. This is where the one choice by weight type happens; a backend sees formats, never
// types.
#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "apr/plan.h"
#include "core/model/model.h"
#include "core/plugin/catalog.h"
#include "core/probe/probe.h"

namespace apr {

// Weights whose format is changed at load: dequantised, quantised through the other format's plugin, held in
// memory.
struct PlanOptions {
  std::vector<PatternQtype> force_qtype;  // the first pattern that matches a weight's name or role wins
  std::optional<FormatName> lm_head_force_qtype;  // the head only; wins over force_qtype
};
PlanOptions plan_options(const Probes& probes);

// A tensor of the model with what decodes it.
struct BoundWeight {
  Tensor tensor;                   // as in the file; its data stays mapped as long as the plan lives
  const apr_quant_format* format;  // of c.data: the tensor's own, or the one that was forced
  std::vector<std::byte> owned;    // packed rows when the format was forced, else empty
  apr_weight c;                    // what backends see
};

// Owns all that the apr_plan points to, and shares the model's mappings. Never moves, so that pointers stay
// good.
class Plan {
 public:
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  const apr_plan& c() const { return c_; }
  const std::deque<BoundWeight>& weights() const { return weights_; }
  // What a person should know though it stops nothing: unused tensors, forced formats, a shortened context.
  // Also logged.
  const std::vector<std::string>& notes() const { return notes_; }
  // The plan as text, one operation a line.
  std::string dump() const;

 private:
  friend class PlanBuilder;
  Plan() = default;

  std::vector<std::shared_ptr<MappedFile>> files_;
  std::vector<std::shared_ptr<const std::vector<std::byte>>> made_;  // packed at load, or in no file
  std::string arch_, model_name_;
  std::deque<std::string> strings_;        // names that the C structs point to
  std::deque<std::vector<float>> floats_;  // data of vectors
  std::deque<BoundWeight> weights_;
  std::deque<apr_vector> vectors_;
  std::deque<apr_value> values_;
  std::deque<apr_op> ops_;
  std::vector<const apr_weight*> weight_list_;
  std::vector<const apr_vector*> vector_list_;
  std::vector<const apr_value*> value_list_;
  std::vector<const apr_op*> op_list_;
  std::vector<std::string> notes_;
  apr_plan c_{};
};

// Throws apr::Error: an architecture that is not known (the known ones are listed), a key or tensor that is
// missing, a shape that disagrees with the hyper-parameters, a format without a plugin, a pattern of options
// that matches nothing.
std::unique_ptr<Plan> build_plan(const Model& model, Catalog& catalog, const PlanOptions& options = {});

// "llama", "qwen2", ...: those that build_plan knows.
std::vector<std::string_view> known_architectures();

}  // namespace apr
