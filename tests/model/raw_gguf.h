// GGUF files made by hand for tests: field by field, so that any field can be wrong. Deliberately not the
// program's own writer, which refuses to write what these tests need.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace apr_test {

// Bytes put one after the other, little-endian.
struct Bytes {
  std::string out;

  template <typename T>
  Bytes& put(T value) {
    char raw[sizeof value];
    std::memcpy(raw, &value, sizeof value);
    out.append(raw, sizeof value);
    return *this;
  }
  Bytes& u8(uint8_t v) { return put(v); }
  Bytes& u32(uint32_t v) { return put(v); }
  Bytes& u64(uint64_t v) { return put(v); }
  Bytes& str(std::string_view text) {
    u64(text.size());
    out.append(text);
    return *this;
  }
};

struct RawKey {
  std::string key;
  uint32_t type;
  std::string value;  // as stored
};

struct RawTensor {
  std::string name;
  std::vector<uint64_t> dims;
  uint32_t type;
  uint64_t offset;
};

inline RawKey u32_key(std::string key, uint32_t value) { return {std::move(key), 4, Bytes().u32(value).out}; }
inline RawKey u16_key(std::string key, uint16_t value) { return {std::move(key), 2, Bytes().put(value).out}; }
inline RawKey string_key(std::string key, std::string_view value) {
  return {std::move(key), 8, Bytes().str(value).out};
}
inline RawKey array_key(std::string key, uint32_t type, uint64_t count, std::string_view items) {
  return {std::move(key), 9, Bytes().u32(type).u64(count).out + std::string(items)};
}

struct RawGguf {
  std::string magic = "GGUF";
  uint32_t version = 3;
  std::vector<RawKey> keys;
  std::vector<RawTensor> tensors;
  uint64_t alignment = 32;     // of the data section; a key general.alignment is the caller's to add
  uint64_t data_bytes = 0;     // after the header and its padding
  uint64_t extra_tensors = 0;  // added to the count that the header gives
  uint64_t extra_keys = 0;

  std::string header() const {
    Bytes b;
    b.out = magic;
    b.u32(version).u64(tensors.size() + extra_tensors).u64(keys.size() + extra_keys);
    for (const RawKey& key : keys) {
      b.str(key.key).u32(key.type);
      b.out += key.value;
    }
    for (const RawTensor& tensor : tensors) {
      b.str(tensor.name).u32(static_cast<uint32_t>(tensor.dims.size()));
      for (const uint64_t dim : tensor.dims) b.u64(dim);
      b.u32(tensor.type).u64(tensor.offset);
    }
    return b.out;
  }

  // The data's bytes count up from 0, modulo 251 (a prime, so that a shifted read shows).
  std::string bytes() const {
    std::string out = header();
    if (data_bytes == 0) return out;
    out.resize((out.size() + alignment - 1) / alignment * alignment);
    for (uint64_t i = 0; i < data_bytes; ++i) out += static_cast<char>(i % 251);
    return out;
  }
};

// Two tensors: 64 x 3 f32 (768 bytes) and 256 x 2 q4_k (288 bytes).
inline RawGguf two_tensors() {
  RawGguf raw;
  raw.tensors = {{"a", {64, 3}, 0, 0}, {"b.weight", {256, 2}, 12, 768}};
  raw.data_bytes = 768 + 288;
  return raw;
}

inline std::span<const std::byte> as_bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace apr_test
