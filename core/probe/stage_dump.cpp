#include "core/probe/stage_dump.h"

#include <algorithm>
#include <bit>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/format.h"

namespace apr {

namespace fs = std::filesystem;
static_assert(std::endian::native == std::endian::little, "stage files are written as they lie in memory");

namespace {

constexpr size_t kHeaderAlign = 64;
constexpr size_t kMaxHeader = 16 << 20;  // positions and sequences of the largest batch fit many times over
constexpr std::string_view kExtension = ".stage";

// Stage names are dots and words; whatever else a backend says must not leave the folder.
std::string file_name(size_t index, std::string_view stage) {
  std::string name = fmt::format("{:05}-", index);
  for (char c : stage) name += (c == '/' || c == '\0' || static_cast<unsigned char>(c) < 32) ? '_' : c;
  return name + std::string(kExtension);
}

fs::path step_path(const fs::path& folder, uint64_t step) { return folder / fmt::format("{:06}", step); }

}  // namespace

StageDump::StageDump(const fs::path& folder, std::string backend, std::string model)
    : folder_(fs::absolute(folder) / backend), backend_(std::move(backend)), model_(std::move(model)) {
  std::error_code failure;
  if (fs::exists(folder_, failure)) {
    throw Error(
        "stage dump: {} exists already, and stages of two runs in one folder could not be told apart; name "
        "another "
        "folder or remove it",
        folder_.native());
  }
  fs::create_directories(folder_, failure);
  if (failure) throw Error("stage dump: {} cannot be made: {}", folder_.native(), failure.message());
}

void StageDump::begin_step(const apr_batch& batch) {
  failure_ = nullptr;
  written_ = 0;
  positions_.assign(batch.positions, batch.positions + batch.n);
  sequences_.assign(batch.sequences, batch.sequences + batch.n);
  wanted_positions_.clear();
  wanted_sequences_.clear();
  for (uint32_t i = 0; i < batch.n; ++i) {
    if (!batch.want[i]) continue;
    wanted_positions_.push_back(batch.positions[i]);
    wanted_sequences_.push_back(batch.sequences[i]);
  }
  step_folder_ = step_path(folder_, step_);
  std::error_code failure;
  fs::create_directory(step_folder_, failure);
  if (failure) throw Error("stage dump: {} cannot be made: {}", step_folder_.native(), failure.message());
}

void StageDump::end_step() {
  ++step_;
  if (failure_) std::rethrow_exception(failure_);
}

void StageDump::tap(void* user, const char* stage, const float* data, uint32_t rows, uint32_t width) {
  auto& dump = *static_cast<StageDump*>(user);
  if (dump.failure_) return;
  try {
    dump.write(stage, data, rows, width);
  } catch (...) {
    dump.failure_ = std::current_exception();
  }
}

void StageDump::write(const char* stage, const float* data, uint32_t rows, uint32_t width) {
  const bool all = rows == positions_.size();
  if (!all && rows != wanted_positions_.size()) {
    throw Error(
        "stage dump: backend '{}' reports {} rows of stage {}, but the batch has {} tokens and {} wanted "
        "ones",
        backend_, rows, stage, positions_.size(), wanted_positions_.size());
  }
  const nlohmann::ordered_json header = {{"apr_stage", 1},
                                         {"stage", stage},
                                         {"dtype", "f32"},
                                         {"shape", {rows, width}},
                                         {"positions", all ? positions_ : wanted_positions_},
                                         {"sequences", all ? sequences_ : wanted_sequences_},
                                         {"step", step_},
                                         {"backend", backend_},
                                         {"model", model_}};
  std::string text = header.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  text.resize((text.size() + 1 + kHeaderAlign - 1) / kHeaderAlign * kHeaderAlign, ' ');
  text.back() = '\n';
  const fs::path path = step_folder_ / file_name(written_++, stage);
  std::ofstream out(path, std::ios::binary);
  out.write(text.data(), static_cast<std::streamsize>(text.size()));
  out.write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(sizeof(float) * rows * width));
  out.close();
  if (!out) throw Error("stage dump: {} cannot be written; is the disk full?", path.native());
}

StageRecord read_stage(const fs::path& file) {
  std::ifstream in(file, std::ios::binary | std::ios::ate);
  if (!in) throw Error("{}: cannot be opened", file.native());
  const auto bytes = static_cast<uint64_t>(in.tellg());
  in.seekg(0);
  std::string text(std::min<uint64_t>(bytes, kMaxHeader), '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  const size_t end = text.find('\n');
  if (end == std::string::npos)
    throw Error("{}: is no stage dump: its first line does not end", file.native());
  StageRecord record;
  try {
    const auto header = nlohmann::json::parse(text.substr(0, end));
    if (header.at("apr_stage") != 1 || header.at("dtype") != "f32")
      throw Error("version or dtype is unknown");
    header.at("stage").get_to(record.stage);
    header.at("backend").get_to(record.backend);
    header.at("model").get_to(record.model);
    header.at("step").get_to(record.step);
    header.at("shape").at(0).get_to(record.rows);
    header.at("shape").at(1).get_to(record.width);
    header.at("positions").get_to(record.positions);
    header.at("sequences").get_to(record.sequences);
  } catch (const std::exception& error) {
    throw Error("{}: is no stage dump that this version can read: {}", file.native(),
                printable(error.what(), 256));
  }
  const uint64_t expected = end + 1 + sizeof(float) * uint64_t{record.rows} * record.width;
  if (bytes != expected || record.positions.size() != record.rows || record.sequences.size() != record.rows) {
    throw Error("{}: has {} bytes, but {} rows of {} floats need {}; was it cut?", file.native(), bytes,
                record.rows, record.width, expected);
  }
  record.data.resize(uint64_t{record.rows} * record.width);
  in.clear();
  in.seekg(static_cast<std::streamoff>(end + 1));
  in.read(reinterpret_cast<char*>(record.data.data()),
          static_cast<std::streamsize>(record.data.size() * sizeof(float)));
  if (!in) throw Error("{}: cannot be read", file.native());
  return record;
}

std::vector<fs::path> stage_files(const fs::path& folder, const std::string& backend, uint64_t step) {
  const fs::path path = step_path(folder / backend, step);
  std::vector<fs::path> files;
  std::error_code failure;
  for (fs::directory_iterator it(path, failure), end; !failure && it != end; it.increment(failure)) {
    if (it->path().extension() == kExtension) files.push_back(it->path());
  }
  if (failure) throw Error("stage dump: {}: {}", path.native(), failure.message());
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace apr
