#include "core/quantize/source_rows.h"

#include <cstring>

#include "core/plan/pack_scaled.h"

namespace apr {

namespace {

// [heads][2][half][row] -> [heads][half][2][row]
std::vector<std::byte> adjacent_pairs(const std::byte* rows, uint64_t bytes, uint64_t n, uint64_t heads) {
  std::vector<std::byte> out(bytes);
  const uint64_t row = bytes / n, half = n / heads / 2;
  std::byte* to = out.data();
  for (uint64_t head = 0; head < heads; ++head) {
    for (uint64_t pair = 0; pair < half; ++pair) {
      for (uint64_t part = 0; part < 2; ++part, to += row)
        std::memcpy(to, rows + ((2 * head + part) * half + pair) * row, row);
    }
  }
  return out;
}

}  // namespace

SourceRows source_rows(const TensorDecision& decision, Catalog& catalog) {
  SourceRows source{*decision.tensor, nullptr};
  Tensor& tensor = source.tensor;
  const auto take = [&](std::vector<std::byte> bytes) {
    source.made = std::make_shared<const std::vector<std::byte>>(std::move(bytes));
    tensor.data = source.made->data();
    tensor.bytes = source.made->size();
    tensor.part = kNoPart;
  };
  if (tensor.scales) take(pack_scaled(tensor, catalog).bytes);
  tensor.scales.reset();
  if (decision.halves_of_heads != 0) {
    // A bias is one row of single elements: they are what is permuted.
    const uint64_t n = tensor.dims.size() == 1 ? tensor.k() : tensor.n();
    take(adjacent_pairs(tensor.data, tensor.bytes, n, decision.halves_of_heads));
  }
  return source;
}

}  // namespace apr
