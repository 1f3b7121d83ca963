#include "aprctl/diff_sources.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <map>
#include <tuple>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/compare/measure.h"
#include "core/hf/open_model.h"

namespace apr::ctl {

namespace fs = std::filesystem;

const char* to_string(SourceKind kind) {
  switch (kind) {
    case SourceKind::Model:
      return "model";
    case SourceKind::Tensor:
      return "tensor";
    case SourceKind::Dump:
      return "stage dump";
    case SourceKind::Logits:
      return "raw float32";
  }
  return "?";
}

namespace {

bool begins_as_a_model(const std::string& path) {
  char magic[4] = {};
  std::ifstream(path, std::ios::binary).read(magic, sizeof magic);
  return std::memcmp(magic, "GGUF", sizeof magic) == 0;
}

// A step folder's name is its number.
bool holds_steps(const fs::path& folder) {
  std::error_code failure;
  for (const auto& entry : fs::directory_iterator(folder, failure))
    if (entry.is_directory() &&
        entry.path().filename().string().find_first_not_of("0123456789") == std::string::npos)
      return true;
  return false;
}

fs::path dump_of(const std::string& name) {
  if (holds_steps(name)) return name;
  std::vector<std::string> backends;
  std::error_code failure;
  for (const auto& entry : fs::directory_iterator(name, failure))
    if (entry.is_directory() && holds_steps(entry.path()))
      backends.push_back(entry.path().filename().string());
  std::sort(backends.begin(), backends.end());
  if (backends.size() == 1) return fs::path(name) / backends[0];
  if (backends.empty())
    throw Error("{}: holds no stage dump; APR_STAGE_DUMP=FOLDER writes one", printable(name, kLongPath));
  throw Error("{}: holds the dumps of {}; name one, like {}/{}", printable(name, kLongPath), joined(backends),
              name, backends[0]);
}

}  // namespace

Source open_source(const std::string& name) {
  std::error_code failure;
  const bool hugging_face =
      fs::exists(fs::path(name) / "config.json", failure) || name.ends_with(".safetensors");
  if (hugging_face)
    return {SourceKind::Model, name, std::make_shared<Model>(open_model(name)), nullptr, name};
  if (fs::is_directory(name, failure)) return {SourceKind::Dump, name, nullptr, nullptr, dump_of(name)};
  if (fs::exists(name, failure)) {
    if (begins_as_a_model(name))
      return {SourceKind::Model, name, std::make_shared<Model>(open_gguf(name)), nullptr, name};
    return {SourceKind::Logits, name, nullptr, nullptr, name};
  }
  // The last colon that leaves a file before it: paths may hold colons too.
  for (size_t colon = name.rfind(':'); colon != std::string::npos && colon > 0;
       colon = name.rfind(':', colon - 1)) {
    const std::string file = name.substr(0, colon);
    if (!fs::exists(file, failure)) continue;
    auto model = std::make_shared<Model>(open_model(file));
    const Tensor& tensor = model->require(name.substr(colon + 1));
    return {SourceKind::Tensor, name, model, &tensor, file};
  }
  throw Error("{}: is no file and no folder; compare models, MODEL:TENSOR, dump folders or raw float32 files",
              printable(name, kLongPath));
}

DumpedRows dumped_rows(const fs::path& dump) {
  DumpedRows all;
  std::vector<DumpedRow>& rows = all.rows;
  std::map<std::tuple<std::string, int32_t, int32_t>, uint32_t> seen;
  for (uint64_t step = 0;; ++step) {
    const fs::path folder = dump / fmt::format("{:06}", step);
    std::error_code failure;
    if (!fs::is_directory(folder, failure)) break;
    for (const fs::path& file : stage_files(dump.parent_path(), dump.filename().string(), step)) {
      const StageRecord record = read_stage(file);
      if (rows.empty()) all.model = record.model;
      if (record.model != all.model)
        throw Error(
            "{}: is of model {}, but the dump began with {}; stages of two models in one dump mean nothing",
            file.native(), printable(record.model), printable(all.model));
      for (uint32_t r = 0; r < record.rows; ++r)
        rows.push_back({record.stage, record.positions[r], record.sequences[r],
                        seen[{record.stage, record.sequences[r], record.positions[r]}]++, file, r});
    }
  }
  if (rows.empty()) throw Error("{}: no step in this dump", dump.native());
  return all;
}

}  // namespace apr::ctl
