// llama.cpp's quantisers, out of its library libggml-base.so: any build of it that still has the functions
// below, opened at run time. Their signatures are those of ggml.h.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "apr/quant.h"

namespace apr::compare {

class Peer {
 public:
  // Throws apr::Error: no such library, or a function is missing.
  explicit Peer(const std::string& path);

  const std::string& version() const { return version_; }  // "0.9.4 (commit abc1234)"
  // Does it number this format, and have a quantiser and a decoder for it?
  bool has(const apr_quant_format& format) const;
  // rows [n][k] to its packed rows; importance [k] [nullable].
  std::vector<uint8_t> quantize(const apr_quant_format& format, const float* rows, uint64_t n, uint64_t k,
                                const float* importance) const;
  std::vector<float> dequantize(const apr_quant_format& format, const uint8_t* packed,
                                uint64_t elements) const;

 private:
  void* library_;
  std::string path_, version_;
  size_t (*quantize_chunk_)(int type, const float* src, void* dst, int64_t start, int64_t n_rows,
                            int64_t n_per_row, const float* importance);
};

}  // namespace apr::compare
