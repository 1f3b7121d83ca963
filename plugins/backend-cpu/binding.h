// A weight and the format's kernels that were chosen for it, once, at load.
#pragma once

#include <apr/plan.h>

#include <cstdint>

namespace apr::cpu {

struct BoundWeight {
  apr_weight weight;
  const uint8_t* data;
  uint64_t row_bytes;
  uint64_t k_step;      // columns that the GEMM unpacks at a time: a multiple of the format's blocks and of 32
  bool integer;         // int8 activations: gemv and unpack_int; otherwise float activations: gemv and unpack_float
  uint32_t group;       // integer: columns that share a scale
  void (*gemv)(const apr_cpu_gemv*);
  void (*unpack_int)(const void* row, uint64_t k0, uint64_t cols, int8_t* q, float* scale, float* offset);
  void (*unpack_float)(const void* row, uint64_t k0, uint64_t cols, float* w);
  apr_isa gemv_isa, unpack_isa;
  const char* gemv_origin;   // "derived", "hand-written"
  const char* unpack_origin;
};

// Checks a weight against its format and chooses, for each function, that of the highest instruction set up to `isa` that
// has one. `choices` counts them. Throws Failure: APR_INVALID for a weight that disagrees with its format, naming it,
// APR_UNSUPPORTED when the format has no kernel.
BoundWeight bind_weight(const apr_weight* weight, apr_isa isa, bool precise, uint64_t& choices);

}  // namespace apr::cpu
