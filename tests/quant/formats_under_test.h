// The formats that the test executable was given as plugin libraries, and the blocks that they are tried
// with.
#pragma once

#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "apr/codec.h"
#include "apr/quant.h"

namespace apr::test {

// Opens the library as the program does and adds its formats. Throws std::runtime_error with what is wrong.
void add_plugin(const std::string& path);
const std::vector<const apr_quant_format*>& formats();
const apr_quant_format* find_format(const std::string& name);  // null when no given library has it

// The kernel sets of a format that this processor can run.
std::vector<const apr_cpu_kernels*> runnable(const apr_quant_format& format);
const char* isa_name(apr_isa isa);

using Random = std::mt19937_64;

inline uint64_t row_bytes(const apr_quant_format& f, uint64_t k) {
  return k / f.block_elements * f.block_bytes;
}

// n bytes that are not just noise: whole blocks of 0x00 and 0xff, and halves that are zero, subnormal,
// greatest, infinite or NaN, most often where formats keep their scales: at the ends of a block.
std::vector<uint8_t> edge_blocks(const apr_quant_format& format, uint64_t n_blocks, Random& random);

// Normal weights through the format's own quantiser.
std::vector<uint8_t> normal_rows(const apr_quant_format& format, uint64_t n_rows, uint64_t k, Random& random);
// The same, a third of the blocks replaced by noise and edge cases that decode to values below 100.
std::vector<uint8_t> finite_rows(const apr_quant_format& format, uint64_t n_rows, uint64_t k, Random& random);

// Equal bits, or both NaN: which NaN an operation returns is not defined, and differs between processors.
inline bool same(float a, float b) { return float_to_bits(a) == float_to_bits(b) || (a != a && b != b); }

// An error buffer whose text can be read.
struct Message : apr_error {
  Message() {
    struct_size = sizeof(apr_error);
    message[0] = 0;
  }
  std::string text() const { return message; }
};

}  // namespace apr::test
