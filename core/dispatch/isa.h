// Instruction sets of CPU kernels by their names.
#pragma once

#include <string_view>

#include "apr/quant.h"

namespace apr {

// "portable", "avx2", "avx512": as APR_CPU_ISA, profiles and the CPU backend's setting "isa" take it.
std::string_view name(apr_isa isa);

}  // namespace apr
