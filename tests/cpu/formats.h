// Weight formats made for these tests, as plain as their definitions, so that the backend is tested without the plugins:
//   float32: floats; blocks of one element
//   int-32:  blocks of 64; a scale and an offset for each 32 columns
//   int-16:  blocks of 32; a scale for each 16 columns, no offsets
//   int-128: blocks of 256; a scale and an offset for each 128 columns
//   int-48:  blocks of 48; a scale and an offset for each 16 columns: K need not be a multiple of 32
#pragma once

#include <apr/quant.h>

#include <cstdint>
#include <vector>

namespace apr::test {

extern const apr_quant_format kFloat32, kInt32, kInt16, kInt128, kInt48;

struct Packed {
  const apr_quant_format* format;
  uint64_t n, k;
  std::vector<uint8_t> bytes;
  std::vector<float> dense;  // [n][k] what the rows decode to
};

// Ranges of the int8 weights: kernels take other paths for small ones.
enum class Range { Bits4, Signed4, Bits6, Bits8 };

// Rows of random weights of about 1/sqrt(k); offset by one byte from any alignment.
Packed random_weights(const apr_quant_format& format, uint64_t n, uint64_t k, uint32_t seed,
                      Range range = Range::Bits8);
// In float32.
Packed exact_weights(uint64_t n, uint64_t k, const std::vector<float>& dense);

// Row of an integer format taken apart.
struct IntRow {
  std::vector<int8_t> q;
  std::vector<float> scale, offset;  // [k / group]
};
IntRow take_apart(const Packed& w, uint64_t row);

}  // namespace apr::test
