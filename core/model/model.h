// A model file as the rest of the program sees it: metadata and named tensors, still packed, in a read-only
// mapping.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/mapped_file.h"
#include "core/dispatch/weight_quant_type.h"
#include "core/model/metadata.h"

namespace apr {

// Scales that a container keeps beside single elements: element [n][k] is multiplied with
// values[n / rows * across + k / columns].
struct ElementScales {
  std::vector<float> values;
  uint64_t rows, columns;  // of the tensor that share one; at least 1
  uint64_t across;         // scales side by side
};

constexpr uint32_t kNoPart = UINT32_MAX;

// One packed matrix or vector. W[N,K]: N rows of K columns, each row a whole number of blocks, rows one after
// the other.
struct Tensor {
  std::string name;            // "blk.0.attn_q.weight"
  WeightQuantType qtype;       // the declared type; never guessed from a size
  std::string format;          // the format's name: "q4_k", or an extension's "vendor.format"
  std::vector<uint64_t> dims;  // 1 to 4 sizes, fastest first as in GGUF: {K, N, ...}
  const std::byte* data;       // in the mapping; bytes long
  uint64_t bytes;
  uint32_t part;  // index into Model::files; kNoPart: the data are in Model::made
  // With scales, data are single elements (scaled_block() of the qtype): pack_scaled() makes rows of blocks.
  std::optional<ElementScales> scales = std::nullopt;

  uint64_t k() const { return dims[0]; }
  uint64_t n() const;  // product of the other dims
  uint64_t elements() const { return k() * n(); }
};

struct Model {
  Metadata meta;
  std::vector<Tensor> tensors;                     // in file order, names unique
  std::vector<std::shared_ptr<MappedFile>> files;  // the parts, in order; then config.json and the like
  std::vector<std::shared_ptr<const std::vector<std::byte>>> made =
      {};  // data of tensors that are in no file

  const Tensor* find(std::string_view name) const;     // null when there is none
  const Tensor& require(std::string_view name) const;  // throws apr::Error that names the tensor and the file
  uint64_t weight_bytes() const;
  uint64_t parameters() const;
  // sha256 over all parts, hex. Reads the whole file: seconds per gigabyte.
  std::string sha256() const;
};

// Opens a GGUF v2 or v3, or all parts of a multi-part one given any of its parts. Every count, offset, type
// and size is checked against the file before it is used; throws apr::Error with file, tensor and byte
// offset.
Model open_gguf(const std::string& path);

}  // namespace apr
