// A tensor's rows as the result's container has them, where the source's has them otherwise.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "core/model/model.h"
#include "core/plugin/catalog.h"

namespace apr {

struct SourceRows {
  Tensor tensor;                                       // packed rows, in tensor.format
  std::shared_ptr<const std::vector<std::byte>> made;  // its data, where they are no longer the file's
};

// Heads of a Llama's q or k (weight or bias) whose rows lie in halves and are to be put into adjacent pairs, as every
// reader of a GGUF Llama expects them; 0: the rows stay as they are. Other architectures have halves in GGUF too.
uint32_t halves_of_heads(const Model& model, const Tensor& tensor);

// The rows so, and elements with scales packed into blocks. Holds this tensor in memory where something changes.
SourceRows source_rows(const Model& model, const Tensor& tensor, Catalog& catalog);

}  // namespace apr
