// Reads the values of a GGUF header one after the other, each checked against the end first. Private to the
// GGUF reader.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/model/metadata.h"

namespace apr {

// No real header comes near this (vocabularies of 260k tokens make about 15 MiB). Without it, a damaged count
// in a 100 GB model could make the reader take weights for strings, and allocate as much.
inline constexpr uint64_t kMaxHeaderBytes = 128ULL << 20;

// Reads values one after the other; every read is checked against the end first.
class GgufCursor {
 public:
  GgufCursor(std::span<const std::byte> bytes, const std::string& origin)
      : data_(bytes.data()),
        end_(std::min<uint64_t>(bytes.size(), kMaxHeaderBytes)),
        file_size_(bytes.size()),
        origin_(origin) {}

  uint64_t at() const { return at_; }
  uint64_t remaining() const { return end_ - at_; }

  // what is the thing being read, for the error: "the value of key 'x'".
  template <typename T, typename What>
  T read(const What& what) {
    need(sizeof(T), what);
    T value;
    std::memcpy(&value, data_ + at_, sizeof value);
    at_ += sizeof value;
    return value;
  }

  template <typename What>
  std::string_view read_string(const What& what) {
    const auto length = read<uint64_t>(what);
    if (length > remaining()) {
      at_ -= sizeof length;
      short_of(fmt::format("{} (a string of {} bytes)", what(), length));
    }
    const std::string_view text(reinterpret_cast<const char*>(data_ + at_), length);
    at_ += length;
    return text;
  }

  // count elements of at least `each` bytes must still fit: checked before anything is allocated for them.
  template <typename What>
  void need_elements(uint64_t count, uint64_t each, const What& what) {
    if (count > remaining() / each) {
      short_of(fmt::format("{} ({} elements of at least {} bytes)", what(), count, each));
    }
  }

 private:
  template <typename What>
  void need(uint64_t bytes, const What& what) {
    if (bytes > remaining()) short_of(what());
  }

  [[noreturn]] void short_of(const std::string& what) const {
    if (end_ < file_size_) {
      throw Error(
          "{}: {} at byte {} runs past {} of header; no model has that much metadata, so the file is damaged",
          origin_, what, at_, human_bytes(kMaxHeaderBytes));
    }
    throw Error(
        "{}: {} at byte {} runs past the end of the file ({} bytes); the file is cut short or damaged",
        origin_, what, at_, file_size_);
  }

  const std::byte* data_;
  uint64_t at_ = 0;
  uint64_t end_;
  uint64_t file_size_;
  const std::string& origin_;
};

// Reads `count` keys with their values.
Metadata read_gguf_metadata(GgufCursor& cursor, uint64_t count, const std::string& origin);

}  // namespace apr
