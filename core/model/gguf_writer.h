// Writes a GGUF v3 file: the header first, then each tensor's packed bytes as they are made. The file appears
// under its name only when it is whole (atomic_file.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/atomic_file.h"
#include "core/base/sha256.h"
#include "core/dispatch/weight_quant_type.h"
#include "core/model/metadata.h"

namespace apr {

// What the header says of one tensor.
struct GgufTensor {
  std::string name;
  WeightQuantType qtype;
  std::string format;          // "q4_k"; "vendor.format" when qtype is Extension
  std::vector<uint64_t> dims;  // 1 to 4 sizes, fastest first: {K, N, ...}
  QuantGeometry geometry;      // of the format; a well-known type's must be the known one
};

// The entry for a well-known type. Throws for Extension, whose geometry only its plugin knows.
GgufTensor gguf_tensor(std::string name, WeightQuantType qtype, std::vector<uint64_t> dims);

// The header with its padding: magic, counts, metadata, tensor descriptions, up to where the first tensor's
// data begins. apr.extension_* keys are not taken over from meta but made for the tensors at hand.
// general.alignment is obeyed. Throws on what no reader accepts.
std::vector<std::byte> gguf_header(const Metadata& meta, const std::vector<GgufTensor>& tensors);

class GgufWriter {
 public:
  // Creates a temporary file beside path, reserves the room and writes the header. The model is written as
  // one file, so split.* keys are left out. Throws when a tensor or the place is not possible.
  GgufWriter(const std::string& path, const Metadata& meta, std::vector<GgufTensor> tensors);

  // The next bytes of the tensor data: tensors in the order given, each in pieces of any size. A piece must
  // not reach into the next tensor; padding is written here. Not for several threads at once.
  void append(std::span<const std::byte> bytes);
  // The packed size of tensor i, in bytes: what append() must bring in total.
  uint64_t tensor_bytes(size_t i) const { return sizes_[i]; }
  // Of the whole file, header and padding included.
  uint64_t file_bytes() const { return file_bytes_; }
  // Checks that every tensor is whole, flushes to the disk, and renames to path (replacing a file that is
  // there). Returns the file's sha256, in hex.
  std::string finish();

 private:
  GgufWriter(const std::string& path, const std::vector<std::byte>& header, uint64_t alignment,
             std::vector<GgufTensor> tensors);
  void write(std::span<const std::byte> bytes);

  std::vector<GgufTensor> tensors_;
  std::vector<uint64_t> sizes_;  // bytes, as tensors_
  uint64_t alignment_;
  uint64_t file_bytes_ = 0;
  size_t current_ = 0;    // index of the tensor being written
  uint64_t written_ = 0;  // bytes of it so far
  AtomicFile file_;
  Sha256 hash_;
};

}  // namespace apr
