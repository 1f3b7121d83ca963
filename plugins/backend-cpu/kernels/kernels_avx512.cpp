// Kernels for AVX-512 F, BW, VL, DQ and VNNI: this file alone is compiled for them, so it includes nothing whose inline
// functions could be linked into the others.
#include "gemm_int_avx512.h"
#include "simd_avx512.h"
#include "table.h"

namespace apr::cpu {
namespace {
constexpr Kernels kTable = make_kernels<F32x16, IntAvx512>(APR_ISA_AVX512, "avx512");
}

const Kernels& avx512_kernels() { return kTable; }

}  // namespace apr::cpu
