// What formats are tried with: blocks, rows, weights, and memory that ends where an access would be wrong.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "apr/codec.h"
#include "apr/quant.h"

namespace apr::conformance {

using Random = std::mt19937_64;

// The kernel sets of a format that this processor can run.
std::vector<const apr_cpu_kernels*> runnable(const apr_quant_format& format);

inline uint64_t row_bytes(const apr_quant_format& f, uint64_t k) {
  return k / f.block_elements * f.block_bytes;
}

// n_blocks blocks that are not just noise: whole blocks of 0x00 and 0xff, and halves that are zero,
// subnormal, greatest, infinite or NaN, most often where formats keep their scales: at the ends of a block.
std::vector<uint8_t> edge_blocks(const apr_quant_format& format, uint64_t n_blocks, Random& random);

// Normal weights with a few outliers through the format's own quantiser; where it has none, blocks of noise
// that decode to moderate numbers. Throws apr::Error when the quantiser refuses them.
std::vector<uint8_t> normal_rows(const apr_quant_format& format, uint64_t n_rows, uint64_t k, Random& random);
// The same, a third of the blocks replaced by noise and edge cases that decode to values below 100.
std::vector<uint8_t> finite_rows(const apr_quant_format& format, uint64_t n_rows, uint64_t k, Random& random);

// Weights as quantisers meet them, with a deviation of 0.02.
enum class Weights { Normal, HeavyTails, Shifted };
std::vector<float> weights(Weights kind, size_t n, Random& random);

std::vector<float> dequantized(const apr_quant_format& format, const std::vector<uint8_t>& rows, uint64_t k);

// Columns of a row that every check can use: a multiple of the block, at least `least`.
inline uint64_t columns(const apr_quant_format& f, uint64_t least) {
  return (least + f.block_elements - 1) / f.block_elements * f.block_elements;
}

// Equal bits, or both NaN: which NaN an operation returns is not defined, and differs between processors.
inline bool same(float a, float b) { return float_to_bits(a) == float_to_bits(b) || (a != a && b != b); }
// The first index at which they differ, or -1.
int64_t first_difference(std::span<const float> a, std::span<const float> b);

// An error buffer whose text can be read.
struct Message : apr_error {
  Message() {
    struct_size = sizeof(apr_error);
    message[0] = 0;
  }
  std::string text() const { return {message, strnlen(message, sizeof message)}; }
};

// `bytes` bytes that end right before memory that cannot be touched: reading or writing beyond them ends the
// process.
class Guarded {
 public:
  explicit Guarded(size_t bytes);
  Guarded(const void* data, size_t bytes) : Guarded(bytes) { std::memcpy(data_, data, bytes); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded();

  template <typename T = uint8_t>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }
  size_t bytes() const { return bytes_; }

 private:
  uint8_t* mapping_;
  uint8_t* data_;
  size_t bytes_, mapped_;
};

}  // namespace apr::conformance
