// A tensor's rows as the result's container has them, where the source's has them otherwise.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "core/plugin/catalog.h"
#include "core/quantize/plan.h"

namespace apr {

struct SourceRows {
  Tensor tensor;                                       // packed rows in decision.from
  std::shared_ptr<const std::vector<std::byte>> made;  // its data, where they are no longer the file's
};

// Elements with scales are packed into blocks, and rows of q and k that lie in halves of each head (Hugging Face's
// Llama) are put into adjacent pairs, as every reader of a GGUF Llama expects them. Holds this tensor in memory.
SourceRows source_rows(const TensorDecision& decision, Catalog& catalog);

}  // namespace apr
