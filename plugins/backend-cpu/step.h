// What all jobs of a step look at.
#pragma once

#include <cstdint>

#include "program.h"

namespace apr::cpu {

struct StepState {
  const Kernels* kernels;
  uint32_t rows;          // tokens of the step
  uint32_t head_rows;     // wanted tokens of the current group
  const int32_t* tokens;  // [rows], as are the next two
  const int32_t* positions;
  const int32_t* sequences;
  const uint32_t* wanted;  // [head_rows] their rows
  const uint32_t* order;   // [rows] rows by sequence, then position
  bool tapped;             // every stage's output is looked at after its phase

  // Row of the batch that a row of an op stands for.
  uint32_t token_row(bool head, uint32_t row) const { return head ? wanted[row] : row; }
  const float* in(const Input& input, uint32_t row) const {
    return input.value->data + (input.gather ? wanted[row] : row) * input.value->stride;
  }
};

inline float* out_row(const Value& value, uint32_t row) { return value.data + row * value.stride; }

}  // namespace apr::cpu
