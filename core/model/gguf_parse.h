// From the bytes of one GGUF file to its metadata and tensors. Works on any bytes, so that tests and the
// fuzzer need no file; open_gguf() (model.h) maps files and joins parts.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "core/model/metadata.h"
#include "core/model/model.h"

namespace apr {

struct GgufPart {
  Metadata meta;
  std::vector<Tensor> tensors;  // in the header's order; data points into the bytes, part is 0
};

// Reads the header only: the weights' bytes are not touched. Memory use is at most about 8 times the header's
// size, and a header may not exceed 128 MiB. Throws apr::Error that names origin, the key or tensor, and the
// byte offset.
GgufPart parse_gguf(std::span<const std::byte> bytes, const std::string& origin);

}  // namespace apr
