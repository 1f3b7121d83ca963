// Kernels for AVX2, FMA and F16C: this file alone is compiled for them, so it includes nothing whose inline functions
// could be linked into the others.
#include "gemm_int_avx2.h"
#include "simd_avx2.h"
#include "table.h"

namespace apr::cpu {
namespace {
constexpr Kernels kTable = make_kernels<F32x8, IntAvx2>(APR_ISA_AVX2, "avx2");
}

const Kernels& avx2_kernels() { return kTable; }

}  // namespace apr::cpu
