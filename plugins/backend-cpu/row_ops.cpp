#include "row_ops.h"

#include <cmath>
#include <cstring>

namespace apr::cpu::row_ops {

void embed(const RowOp& op, const StepState& state, uint32_t row) {
  const BoundWeight& w = *op.weight;
  const auto token = static_cast<uint64_t>(state.tokens[state.token_row(op.head, row)]);
  w.embed.unpack_float.fn(w.data + token * w.row_bytes, 0, w.weight.k, out_row(*op.out, row));
}

void rms_norm(const RowOp& op, const StepState& state, uint32_t row) {
  state.kernels->rms_norm(state.in(op.a, row), op.vector, op.heads, op.out->width / op.heads, op.eps,
                          out_row(*op.out, row));
}

void add(const RowOp& op, const StepState& state, uint32_t row) {
  state.kernels->add(state.in(op.a, row), state.in(op.b, row), op.out->width, out_row(*op.out, row));
}

void swiglu(const RowOp& op, const StepState& state, uint32_t row) {
  state.kernels->swiglu(state.in(op.a, row), state.in(op.b, row), op.out->width, out_row(*op.out, row));
}

void rope_adjacent(const RowOp& op, const StepState& state, uint32_t row) {
  const float* table = op.rope->data + uint64_t{state.token_row(op.head, row)} * op.rope->dims;
  state.kernels->rope_adjacent(state.in(op.a, row), table, op.heads, op.head_dim, op.rope->dims,
                               out_row(*op.out, row));
}

void rope_halves(const RowOp& op, const StepState& state, uint32_t row) {
  const float* table = op.rope->data + uint64_t{state.token_row(op.head, row)} * op.rope->dims;
  state.kernels->rope_halves(state.in(op.a, row), table, op.heads, op.head_dim, op.rope->dims,
                             out_row(*op.out, row));
}

void rope_table(const RowOp& op, const StepState& state, uint32_t row) {
  const RopeTable& table = *op.rope;
  const uint32_t half = table.dims / 2;
  float* cosine = table.data + uint64_t{row} * table.dims;
  float* sine = cosine + half;
  // In double: at position 100000 a float angle is off by 0.004.
  const auto position = static_cast<double>(state.positions[row]);
  for (uint32_t i = 0; i < half; ++i) {
    const double angle = position * static_cast<double>(table.frequencies[i]);
    cosine[i] = static_cast<float>(std::cos(angle) * static_cast<double>(table.scale));
    sine[i] = static_cast<float>(std::sin(angle) * static_cast<double>(table.scale));
  }
}

namespace {
// T: uint16_t for binary16, or float. convert: head_dim floats to T.
template <class T, class Convert>
void store(const RowOp& op, const StepState& state, uint32_t row, Convert&& convert) {
  const KvCache& kv = *op.kv;
  const float *k = state.in(op.a, row), *v = state.in(op.b, row);
  const auto sequence = static_cast<uint32_t>(state.sequences[row]),
             position = static_cast<uint32_t>(state.positions[row]);
  for (uint32_t h = 0; h < kv.heads; ++h, k += kv.head_dim, v += kv.head_dim) {
    T* values = reinterpret_cast<T*>(kv.values(sequence, h)) + uint64_t{position} * kv.padded;
    T* keys = reinterpret_cast<T*>(kv.keys(sequence, h)) +
              uint64_t{position / kTileKeys} * kTileKeys * kv.head_dim + position % kTileKeys;
    // Keys pass through their place for values, which is written last.
    convert(k, kv.head_dim, values);
    for (uint32_t d = 0; d < kv.head_dim; ++d) keys[d * kTileKeys] = values[d];
    convert(v, kv.head_dim, values);
  }
}
}  // namespace

void store_half(const RowOp& op, const StepState& state, uint32_t row) {
  store<uint16_t>(op, state, row, state.kernels->to_half);
}

void store_float(const RowOp& op, const StepState& state, uint32_t row) {
  store<float>(op, state, row,
               [](const float* from, uint64_t n, float* to) { std::memcpy(to, from, n * sizeof(float)); });
}

void pad_quantized(const Quantized& to, uint32_t row) {
  const uint64_t end = round_up(to.value->width, kActBlock);
  if (end % kRowPadding == 0) return;
  static_assert(kRowPadding == 2 * kActBlock, "one block is missing");
  const QuantRow r = to.row(row);
  const uint64_t block = end / kActBlock;
  std::memset(r.q + end, 0, kActBlock);
  r.scale[block] = r.sum32[block] = r.sum16[2 * block] = r.sum16[2 * block + 1] = 0.0f;
  r.bias32[block] = r.bias16[2 * block] = r.bias16[2 * block + 1] = 0;
}

void quantize(const RowOp& op, const StepState& state, uint32_t row) {
  state.kernels->quantize(state.in(op.a, row), 0, op.quantized->value->width, op.quantized->row(row));
  pad_quantized(*op.quantized, row);
}

void pad(const RowOp& op, const StepState&, uint32_t row) {
  float* out = out_row(*op.out, row);
  std::memset(out + op.out->width, 0, (round_up(op.out->width, kRowPadding) - op.out->width) * sizeof(float));
}

void copy(const RowOp& op, const StepState& state, uint32_t row) {
  std::memcpy(out_row(*op.out, row), state.in(op.a, row), op.out->width * sizeof(float));
  pad(op, state, row);
}

}  // namespace apr::cpu::row_ops
