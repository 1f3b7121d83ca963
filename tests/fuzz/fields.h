// Where the fields of a GGUF file lie: a reader of undamaged files alone, written apart from the program's own,
// so that a fuzzer can put absurd values exactly where they hurt.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace apr_test {

enum class FieldKind {
  Magic,
  Version,
  Count,      // of tensors or keys
  Length,     // of a string, in bytes
  Text,       // the string's bytes
  ValueType,  // of a metadata value or of an array's elements
  ArrayCount,
  Number,     // a metadata value
  Element,    // a number of a metadata array
  NumDims,    // of a tensor
  Dim,        // of a tensor
  QuantType,  // of a tensor
  Offset,     // of a tensor's data
};

struct Field {
  size_t at;     // byte
  size_t width;  // bytes
  FieldKind kind;
};

struct Fields {
  std::vector<Field> list;  // in file order
  size_t header_bytes;      // without the padding
};

// Undefined for anything but a whole GGUF v2 or v3.
Fields find_fields(std::span<const std::byte> file);

}  // namespace apr_test
