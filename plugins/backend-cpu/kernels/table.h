// The table of one instruction set from its vector type and its integer GEMM. Included only by kernels_*.cpp.
#pragma once

#include "attention.h"
#include "gemm_float.h"
#include "rows.h"
#include "tiles.h"

namespace apr::cpu {

template <class V, class Int>
constexpr Kernels make_kernels(apr_isa isa, const char* name) {
  return {
      .isa = isa,
      .name = name,
      .rms_norm = &Rows<V>::rms_norm,
      .add = &Rows<V>::add,
      .swiglu = &Rows<V>::swiglu,
      .rope_adjacent = &Rows<V>::rope_adjacent,
      .rope_halves = &Rows<V>::rope_halves,
      .quantize = &Rows<V>::quantize,
      .argmax = &Rows<V>::argmax,
      .to_half = &Rows<V>::to_half,
      .attend = &Attention<V>::attend,
      .attend_join = &Attention<V>::join,
      .attend_finish = &Attention<V>::finish,
      .transpose = &Tiles<V>::transpose,
      .store_tile = &Tiles<V>::store,
      .pack = &Int::pack,
      .gemm_int = &Int::run,
      .gemm_float = &GemmFloatOf<V>::run,
  };
}

}  // namespace apr::cpu
