// Touches all that a parsed file gives out, so that a sanitizer or a fault shows what the parser let through.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>

#include "core/model/gguf_parse.h"

namespace apr_test {

// Throws std::logic_error (never apr::Error) when something is not as parse_gguf() promises.
inline uint64_t read_everything(const apr::GgufPart& part, std::span<const std::byte> bytes) {
  uint64_t sum = 0;
  for (const auto& [key, value] : part.meta.entries()) {
    if (part.meta.find(key) != &value) throw std::logic_error("a key is not found");
    sum += key.size() + static_cast<uint64_t>(part.meta.stored_type(key));
    if (const auto* text = std::get_if<std::string>(&value)) {
      for (const char c : *text) sum += static_cast<unsigned char>(c);
    }
  }
  for (const apr::Tensor& tensor : part.tensors) {
    if (tensor.dims.empty() || tensor.dims.size() > 4 || tensor.elements() == 0 || tensor.bytes == 0) {
      throw std::logic_error("a tensor is empty");
    }
    if (tensor.data < bytes.data() || tensor.bytes > bytes.size() ||
        tensor.data - bytes.data() > static_cast<std::ptrdiff_t>(bytes.size() - tensor.bytes)) {
      throw std::logic_error("a tensor lies outside the file");
    }
    for (uint64_t i = 0; i < tensor.bytes; ++i) sum += static_cast<uint64_t>(tensor.data[i]);
  }
  return sum;
}

}  // namespace apr_test
