// A weight and the format's kernels that were chosen for it, once, at load.
#pragma once

#include <apr/plan.h>

#include <cstdint>

#include "choose.h"

namespace apr::cpu {

// One of a format's functions, and where it comes from.
template <class Fn>
struct FormatKernel {
  Fn fn = nullptr;
  apr_isa isa = APR_ISA_PORTABLE;
  const char* origin = "";  // "derived", "hand-written"
};

using UnpackInt = void (*)(const void* row, uint64_t k0, uint64_t cols, int8_t* q, float* scale,
                           float* offset);
using UnpackRows = void (*)(const apr_cpu_unpack* args);
using UnpackFloat = void (*)(const void* row, uint64_t k0, uint64_t cols, float* w);

// A product's two ways of reading a weight: a few tokens at a time, and many.
struct BoundGemv {
  KernelChoice choice;
  FormatKernel<void (*)(const apr_cpu_gemv*)> kernel;
  bool integer() const { return choice.eats == Eats::Int8; }
};
struct BoundGemm {
  KernelChoice choice;
  FormatKernel<UnpackInt> unpack_int;      // integer: one row
  FormatKernel<UnpackRows> unpack_rows;    // integer: several rows, faster; null where the format has none
  FormatKernel<UnpackFloat> unpack_float;  // otherwise
  const Kernels* kernels = nullptr;        // the backend's own for the chosen instruction set
  uint64_t k_step = 0;  // columns that are unpacked at a time: a multiple of the format's blocks and of 32
  bool integer() const { return choice.eats == Eats::Int8; }
};
struct BoundEmbed {
  KernelChoice choice;
  FormatKernel<UnpackFloat> unpack_float;
};

struct BoundWeight {
  apr_weight weight;
  const uint8_t* data;
  uint64_t row_bytes;
  uint32_t group;  // columns that share a scale; 0 for float codecs
  BoundGemv gemv;
  BoundGemm gemm;
  BoundEmbed embed;
};

// Checks a weight against its format; its kernels are bound by what uses it. Throws Failure APR_INVALID that names the weight.
BoundWeight bind_weight(const apr_weight* weight);

// Choose kernels, unless that has been done. `choices` counts them. Throw Failure: APR_INVALID for a rule that cannot be obeyed,
// APR_UNSUPPORTED when the format has no kernel.
void bind_linear(BoundWeight& weight, const Chooser& chooser, uint64_t& choices);
void bind_embed(BoundWeight& weight, const Chooser& chooser, uint64_t& choices);

// The kernels of a choice. Throw Failure.
BoundGemv bind_gemv(const apr_weight& weight, KernelChoice choice, uint64_t& choices);
BoundGemm bind_gemm(const apr_weight& weight, KernelChoice choice, uint64_t& choices);

}  // namespace apr::cpu
