// A whole model from one set of formats to another: the plan carried out, tensor by tensor, into one GGUF
// file that says where it came from.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/quantize/convert.h"
#include "core/quantize/plan.h"

namespace apr {

// What the result's metadata records, beside the recipe: keys apr.quantize.*.
struct Provenance {
  std::string program;               // "apr 0.1.0"
  std::string source_name;           // the file's name without its folder
  std::string source_sha256;         // of the source's bytes; hex
  std::vector<std::string> plugins;  // "quant-q4k 0.1.0: q4_k", those that wrote something
  const Importance* importance;      // null: none
  std::string importance_sha256;     // "" without importance
};

// Of the plugins that provide the plan's formats.
std::vector<std::string> plugins_of(const QuantizePlan& plan, const Catalog& catalog);

// The source's metadata, with general.file_type, general.quantization_version and the provenance set.
Metadata result_metadata(const QuantizePlan& plan, const Provenance& provenance);

struct QuantizeProgress {
  size_t tensor;        // index into QuantizePlan::decisions
  uint64_t elements;    // of this tensor, done
  uint64_t bytes_read;  // of the source, over all tensors
};

struct QuantizeResult {
  std::vector<ConversionError> errors;  // as QuantizePlan::decisions
  uint64_t file_bytes;
  std::string sha256;  // of the file
};

// Writes path (atomic_file.h). progress is called between pieces on the calling thread, and throws to stop:
// then nothing is left behind.
QuantizeResult quantize_model(const QuantizePlan& plan, Catalog& catalog, const Metadata& meta,
                              const std::string& path, ThreadPool& pool,
                              const std::function<void(const QuantizeProgress&)>& progress);

}  // namespace apr
