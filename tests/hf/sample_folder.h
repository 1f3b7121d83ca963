// A small Llama as Hugging Face writes it, in memory: tests change what they want before it is written.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/base/temp_dir.h"

namespace apr_test {

struct RawTensor {
  std::string name, dtype;
  std::vector<uint64_t> shape;
  std::string data;
};

// Header and data; the offsets follow from the data's sizes.
std::string safetensors(const std::vector<RawTensor>& tensors);
// A header as it is, with its length in front, and data.
std::string safetensors(const std::string& header, const std::string& data);

struct SampleFolder {
  nlohmann::json config;
  std::vector<RawTensor> tensors;  // BF16

  SampleFolder();
  RawTensor& tensor(const std::string& name);
  void erase(const std::string& name);
  // config.json and model.safetensors into dir; gives its path.
  std::string write(const TempDir& dir) const;
};

}  // namespace apr_test
