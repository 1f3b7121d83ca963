// Zeroed, page-aligned memory straight from the system: pages cost nothing until they are touched, and large ones are
// asked for, since activations and KV caches are read in long strides.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace apr::cpu {

class Memory {
 public:
  Memory() = default;
  // Throws Failure APR_NO_MEMORY; `what` names the purpose in the message.
  Memory(uint64_t bytes, const char* what);
  ~Memory();
  Memory(Memory&& other) noexcept { swap(other); }
  Memory& operator=(Memory&& other) noexcept {
    swap(other);
    return *this;
  }

  uint64_t bytes() const { return bytes_; }
  template <class T>
  T* as(uint64_t byte_offset = 0) const {
    return reinterpret_cast<T*>(static_cast<char*>(data_) + byte_offset);
  }

 private:
  void swap(Memory& other) {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  void* data_ = nullptr;
  uint64_t bytes_ = 0;
};

inline uint64_t round_up(uint64_t n, uint64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Offsets of several arrays in one Memory, each aligned to a cache line.
class Layout {
 public:
  uint64_t add(uint64_t bytes) {
    const uint64_t at = bytes_;
    bytes_ += round_up(bytes, 64);
    return at;
  }
  uint64_t bytes() const { return bytes_; }

 private:
  uint64_t bytes_ = 0;
};

}  // namespace apr::cpu
