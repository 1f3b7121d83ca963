// Which format every tensor of a model gets, and why: decided from the headers alone, before a weight is
// read.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "apr/quant.h"
#include "core/model/gguf_writer.h"
#include "core/model/model.h"
#include "core/plugin/catalog.h"
#include "core/quantize/importance.h"
#include "core/quantize/recipe.h"

namespace apr {

struct TensorDecision {
  const Tensor* tensor;
  const apr_quant_format* from;
  const apr_quant_format* to;
  WeightQuantType to_qtype;
  std::string why;       // "q4_k_m.toml:14", "type", "vectors"
  std::string fallback;  // "" or what did not fit: "q4_k does not divide 1000 columns"
  uint64_t bytes;        // packed, in the result
  // The same format, or to be kept: the bytes go over as they are.
  bool copied() const { return from == to; }
  const std::vector<float>* importance = nullptr;  // [K] or [experts][K]; null: every column counts the same
};

struct QuantizePlan {
  const Model* model;
  Recipe recipe;
  ModelFacts facts;
  std::vector<TensorDecision> decisions;  // as Model::tensors
  std::vector<std::string> unmatched;     // origins of a person's rules that decided nothing

  uint64_t bytes() const;  // of all tensors
  // Tensors that are quantised in the source and are rounded to another quantised format.
  std::vector<const TensorDecision*> requantized() const;
};

// Fewer than 16 bits a weight. What is rounded from one such format to another has both errors.
bool is_quantized(const apr_quant_format& format);

ModelFacts facts_of(const Model& model, bool with_importance);

// own_rules: how many rules at the front of the recipe are a person's, to be reported when they decide
// nothing. The model, catalog and importance outlive the plan. Throws apr::Error that names tensor and rule:
// no plugin provides a format, it cannot be written, or no fallback fits.
QuantizePlan plan_quantize(const Model& model, Catalog& catalog, Recipe recipe, size_t own_rules,
                           const Importance* importance);

// The tensors as the writer takes them.
std::vector<GgufTensor> result_tensors(const QuantizePlan& plan);

}  // namespace apr
