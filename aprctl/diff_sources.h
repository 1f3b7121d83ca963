// What `aprctl diff` compares: models, tensors of models, stage dumps, and raw logits, found by what a name
// leads to.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/compare/packing.h"
#include "core/model/model.h"
#include "core/plugin/catalog.h"
#include "core/probe/stage_dump.h"

namespace apr::ctl {

enum class SourceKind { Model, Tensor, Dump, Logits };
const char* to_string(SourceKind kind);

struct Source {
  SourceKind kind;
  std::string name;                    // as it was written
  std::shared_ptr<const Model> model;  // Model, Tensor
  const Tensor* tensor = nullptr;      // Tensor
  std::filesystem::path path;          // Dump: <dump>/<backend>; Logits: the file
};

// A folder with config.json is a model, another one a dump (of one backend, or named down to it: dump/cpu), MODEL:TENSOR
// a tensor, a file that begins as a model does a model, and any other file raw float32. Throws apr::Error that says what was looked
// for.
Source open_source(const std::string& name);

// A stage at one token, in the order of the dump.
struct DumpedRow {
  std::string stage;
  int32_t position, sequence;
  uint32_t occurrence;  // how often this stage has been at this place before
  std::filesystem::path file;
  uint32_t row;
};
struct DumpedRows {
  std::string model;  // sha256 that the dump's files name
  std::vector<DumpedRow> rows;
};
// All rows of a dump of one backend; step folders in order. Throws apr::Error when its files are of several models.
DumpedRows dumped_rows(const std::filesystem::path& dump);

}  // namespace apr::ctl
