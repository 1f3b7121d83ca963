#include "core/quantize/source_rows.h"

#include <cstring>
#include <string_view>

#include "core/base/error.h"
#include "core/base/format.h"
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

uint32_t halves_of_heads(const Model& model, const Tensor& tensor) {
  const Metadata& meta = model.meta;
  if (meta.get_string_or("apr.rope_pairs", "adjacent") != "halves" ||
      meta.get_string("general.architecture") != "llama")
    return 0;
  const std::string_view name = tensor.name;
  const bool q = name.ends_with(".attn_q.weight") || name.ends_with(".attn_q.bias"),
             k = name.ends_with(".attn_k.weight") || name.ends_with(".attn_k.bias");
  if (!q && !k) return 0;
  const uint64_t heads =
      meta.get_uint(q ? "llama.attention.head_count" : "llama.attention.head_count_kv", UINT32_MAX);
  const uint64_t rows = tensor.dims.size() == 1 ? tensor.k() : tensor.n();
  if (heads == 0 || rows % (2 * heads) != 0)
    throw Error("{}: tensor '{}' has {} rows, no even number for each of {} heads", meta.origin(),
                printable(name), rows, heads);
  return static_cast<uint32_t>(heads);
}

SourceRows source_rows(const Model& model, const Tensor& original, Catalog& catalog) {
  SourceRows source{original, nullptr};
  Tensor& tensor = source.tensor;
  const auto take = [&](std::vector<std::byte> bytes) {
    source.made = std::make_shared<const std::vector<std::byte>>(std::move(bytes));
    tensor.data = source.made->data();
    tensor.bytes = source.made->size();
    tensor.part = kNoPart;
  };
  if (tensor.scales) {
    PackedRows packed = pack_scaled(tensor, catalog);
    tensor.format = packed.format->name;
    tensor.qtype = parse_qtype(tensor.format).value_or(WeightQuantType::Extension);
    tensor.scales.reset();
    take(std::move(packed.bytes));
  }
  if (const uint32_t heads = halves_of_heads(model, original)) {
    // A bias is one row of single elements: they are what is permuted.
    const uint64_t n = tensor.dims.size() == 1 ? tensor.k() : tensor.n();
    take(adjacent_pairs(tensor.data, tensor.bytes, n, heads));
  }
  return source;
}

}  // namespace apr
