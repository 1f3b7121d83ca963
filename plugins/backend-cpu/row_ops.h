// The operations that look at one token at a time.
#pragma once

#include "step.h"

namespace apr::cpu::row_ops {

void embed(const RowOp& op, const StepState& state, uint32_t row);
void rms_norm(const RowOp& op, const StepState& state, uint32_t row);
void add(const RowOp& op, const StepState& state, uint32_t row);
void swiglu(const RowOp& op, const StepState& state, uint32_t row);
void rope_adjacent(const RowOp& op, const StepState& state, uint32_t row);
void rope_halves(const RowOp& op, const StepState& state, uint32_t row);

// The program's own.
void rope_table(const RowOp& op, const StepState& state,
                uint32_t row);  // cosines and sines of the token's position
void store_half(const RowOp& op, const StepState& state,
                uint32_t row);  // keys and values to the cache, as binary16
void store_float(const RowOp& op, const StepState& state, uint32_t row);
void quantize(const RowOp& op, const StepState& state, uint32_t row);
void pad(const RowOp& op, const StepState& state,
         uint32_t row);  // zeros behind the row of `out`, up to kRowPadding
void copy(const RowOp& op, const StepState& state, uint32_t row);  // a wanted token's row, with that padding

// The block behind the last one, up to kRowPadding, which kernels may read.
void pad_quantized(const Quantized& to, uint32_t row);

}  // namespace apr::cpu::row_ops
