// Matrix products: the tasks of a Linear phase.
#pragma once

#include "step.h"

namespace apr::cpu {

// One thread's memory for unpacked weights and for results of a tile.
class LinearWorkspace {
 public:
  LinearWorkspace(uint64_t k_step, uint32_t n_batch);

  uint64_t k_step;
  int8_t* q;                      // [kPanelRows][k_step] unpacked rows
  uint8_t* panel;                 // the same, packed for gemm_int
  float *row_scale, *row_offset;  // [kPanelRows][k_step / 16] as unpacked
  float *scale, *offset;          // [k_step / 16][kPanelRows]
  float* w;                       // [kPanelRows / 2][k_step] unpacked rows of floats
  float* c[2];                    // [n_batch][kPanelRows]
  uint64_t bytes() const { return memory_.bytes(); }

 private:
  Memory memory_;
};

// Tasks [begin, end) of a phase with at most APR_CPU_GEMV_MAX_M rows.
void run_gemv(const Phase& phase, const StepState& state, uint64_t begin, uint64_t end);

// Task `task` of a phase with more rows: a panel of kPanelRows rows of W with rows [m0, m1) of the input.
void run_gemm(const Phase& phase, const StepState& state, LinearWorkspace& workspace, uint64_t task,
              uint32_t m0, uint32_t m1);

}  // namespace apr::cpu
