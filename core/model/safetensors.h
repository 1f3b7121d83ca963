// The header of a SafeTensors file: names, dtypes, shapes and places. Works on any bytes, so that tests need
// no file. Source of the format: https://github.com/huggingface/safetensors#format
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace apr {

struct SafeTensor {
  std::string name;
  std::string dtype;            // "BF16"
  std::vector<uint64_t> shape;  // slowest first: [N,K]; may hold zeros
  const std::byte* data;        // in the given bytes
  uint64_t bytes;
};

// In the order of their data. Checks every count and place: the tensors must fill the file's data without
// hole or overlap, and each size must be that of its dtype and shape. Throws apr::Error that names origin and
// tensor.
std::vector<SafeTensor> parse_safetensors(std::span<const std::byte> bytes, const std::string& origin);

}  // namespace apr
