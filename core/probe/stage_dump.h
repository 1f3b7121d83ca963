// Stage dumps: every stage's output of every step, one file each, so that two backends can be compared stage
// by stage.
//
// A dump folder holds <backend>/<step>/<index>-<stage>.stage, numbered as they were reported. A file is one
// line of JSON, padded with spaces to a multiple of 64 bytes, its last byte a line feed, then rows * width
// little-endian float32:
//   {"apr_stage":1,"stage":"blk.0.attn_q","dtype":"f32","shape":[2,512],"positions":[0,1],"sequences":[0,0],"step":0,
//    "backend":"cpu","model":"<sha256 of the model's file, of all parts where there are several>"}
#pragma once

#include <cstdint>
#include <exception>
#include <filesystem>
#include <string>
#include <vector>

#include "apr/backend.h"

namespace apr {

struct StageRecord {
  std::string stage;
  std::string backend;
  std::string model;  // sha256, hex
  uint64_t step;      // counted from 0 by the dump
  uint32_t rows;
  uint32_t width;
  std::vector<int32_t> positions;  // [rows]
  std::vector<int32_t> sequences;  // [rows]
  std::vector<float> data;         // [rows][width]
};

class StageDump {
 public:
  // Makes <folder>/<backend>, which must not exist: stages of two runs in one folder could not be told apart.
  // Throws apr::Error when it does, or cannot be made.
  StageDump(const std::filesystem::path& folder, std::string backend, std::string model);
  StageDump(const StageDump&) = delete;
  StageDump& operator=(const StageDump&) = delete;

  // Around each step: the batch gives the rows their positions.
  void begin_step(const apr_batch& batch);
  // Throws what went wrong while writing this step's files.
  void end_step();

  // For apr_backend::tap, with the StageDump as user. Never throws: it is called from a plugin.
  static void tap(void* user, const char* stage, const float* data, uint32_t rows, uint32_t width);

 private:
  void write(const char* stage, const float* data, uint32_t rows, uint32_t width);

  std::filesystem::path folder_;  // <folder>/<backend>
  std::string backend_;
  std::string model_;
  uint64_t step_ = 0;
  std::filesystem::path step_folder_;
  std::vector<int32_t> positions_, sequences_;                // of all tokens of the batch
  std::vector<int32_t> wanted_positions_, wanted_sequences_;  // of those whose logits are wanted
  size_t written_ = 0;                                        // files of this step
  std::exception_ptr failure_;                                // the first of this step
};

// Reads one file back. Throws apr::Error that names it for a damaged header or a size that disagrees.
StageRecord read_stage(const std::filesystem::path& file);
// Stage files of one step of a dump in the order in which they were written: <folder>/<backend>/<step>.
std::vector<std::filesystem::path> stage_files(const std::filesystem::path& folder,
                                               const std::string& backend, uint64_t step);

}  // namespace apr
