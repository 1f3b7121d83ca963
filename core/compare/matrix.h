// Rows of floats that are made when they are asked for: a tensor that is dequantised, a stage of a dump, a
// file of logits.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace apr {

struct Matrix {
  uint64_t rows = 0, cols = 0;
  // Rows first .. first + count, side by side, to `out`. Called by several threads at once.
  std::function<void(uint64_t first, uint64_t count, float* out)> read;
};

// Over an array [rows][cols] that outlives the matrix.
Matrix matrix_of(const float* data, uint64_t rows, uint64_t cols);

}  // namespace apr
