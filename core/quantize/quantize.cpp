#include "core/quantize/quantize.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "core/base/error.h"
#include "core/base/sha256.h"
#include "core/quantize/source_rows.h"

namespace apr {

namespace {

// Of the K formats' layout, as ggml counts it: readers compare it with their own.
constexpr uint64_t kGgmlQuantizationVersion = 2;
constexpr std::string_view kOwnKeys = "apr.quantize.";
constexpr std::string_view kImatrixKeys = "quantize.imatrix.";

void erase_keys(Metadata& meta, std::string_view prefix) {
  std::vector<std::string> found;
  for (const auto& [key, value] : meta.entries())
    if (std::string_view(key).starts_with(prefix)) found.push_back(key);
  for (const std::string& key : found) meta.erase(key);
}

}  // namespace

std::vector<std::string> plugins_of(const QuantizePlan& plan, const Catalog& catalog) {
  std::set<std::string> formats;
  for (const TensorDecision& decision : plan.decisions)
    if (!decision.copied()) formats.insert(decision.to->name);
  std::vector<std::string> result;
  for (const FoundPlugin& plugin : catalog.plugins()) {
    std::string used;
    for (const std::string& each : plugin.manifest.provides)
      if (formats.count(each)) used += (used.empty() ? "" : ", ") + each;
    if (!used.empty() && plugin.manifest.kind == PluginKind::Quant)
      result.push_back(fmt::format("{} {}: {}", plugin.manifest.name, plugin.manifest.version, used));
  }
  return result;
}

Metadata result_metadata(const QuantizePlan& plan, const Provenance& provenance) {
  Metadata meta = plan.model->meta;
  erase_keys(meta, kOwnKeys);
  erase_keys(meta, kImatrixKeys);
  // source_rows() puts a Llama's rows into the order that needs no word.
  for (const Tensor& tensor : plan.model->tensors)
    if (halves_of_heads(*plan.model, tensor) != 0) meta.erase("apr.rope_pairs");
  // Readers take the number for a hint; a wrong one would be worse than none.
  meta.erase("general.file_type");
  if (plan.recipe.file_type) meta.set("general.file_type", uint64_t{*plan.recipe.file_type});
  meta.set("general.quantization_version", kGgmlQuantizationVersion);
  const auto own = [&](std::string_view key, MetaValue value) {
    meta.set(std::string(kOwnKeys).append(key), std::move(value));
  };
  own("program", provenance.program);
  own("plugins", MetaArray(provenance.plugins));
  own("source", provenance.source_name);
  own("source_sha256", provenance.source_sha256);
  own("recipe", plan.recipe.name);
  own("recipe_text", plan.recipe.text);
  own("recipe_sha256", sha256_hex(plan.recipe.text));
  if (provenance.importance) {
    const Importance& importance = *provenance.importance;
    own("importance_sha256", provenance.importance_sha256);
    // llama.cpp's names for the same.
    meta.set("quantize.imatrix.file", std::filesystem::path(importance.path()).filename().string());
    meta.set("quantize.imatrix.entries_count", uint64_t{importance.entries()});
    if (!importance.dataset().empty()) meta.set("quantize.imatrix.dataset", importance.dataset());
    if (importance.chunks() != 0) meta.set("quantize.imatrix.chunks_count", importance.chunks());
  }
  return meta;
}

QuantizeResult quantize_model(const QuantizePlan& plan, Catalog& catalog, const Metadata& meta,
                              const std::string& path, ThreadPool& pool,
                              const std::function<void(const QuantizeProgress&)>& progress) {
  GgufWriter writer(path, meta, result_tensors(plan));
  QuantizeResult result{};
  uint64_t read = 0;
  for (size_t i = 0; i < plan.decisions.size(); ++i) {
    const TensorDecision& decision = plan.decisions[i];
    const Tensor& tensor = *decision.tensor;
    progress({i, 0, read});
    const SourceRows source = source_rows(*plan.model, tensor, catalog);
    const MappedFile* file =
        source.tensor.part == kNoPart ? nullptr : plan.model->files[source.tensor.part].get();
    result.errors.push_back(
        convert_tensor(decision, source.tensor, file, pool, writer, [&](uint64_t elements) {
          progress({i, elements, read + tensor.bytes * elements / std::max<uint64_t>(tensor.elements(), 1)});
        }));
    read += tensor.bytes;
  }
  result.file_bytes = writer.file_bytes();
  result.sha256 = writer.finish();
  return result;
}

}  // namespace apr
