#include "linear.h"

#include <algorithm>
#include <cstring>

#include "row_ops.h"

namespace apr::cpu {

LinearWorkspace::LinearWorkspace(uint64_t step, uint32_t n_batch) : k_step(step) {
  const uint64_t groups = step / 16;
  Layout l;
  const uint64_t at_q = l.add(kPanelRows * step), at_panel = l.add(kPanelRows * step);
  const uint64_t at_row_scale = l.add(groups * kPanelRows * 4),
                 at_row_offset = l.add(groups * kPanelRows * 4);
  const uint64_t at_scale = l.add(groups * kPanelRows * 4), at_offset = l.add(groups * kPanelRows * 4);
  const uint64_t at_w = l.add(kPanelRows / 2 * step * 4);
  const uint64_t at_c0 = l.add(uint64_t{n_batch} * kPanelRows * 4),
                 at_c1 = l.add(uint64_t{n_batch} * kPanelRows * 4);
  memory_ = Memory(l.bytes(), "a thread's workspace");
  q = memory_.as<int8_t>(at_q);
  panel = memory_.as<uint8_t>(at_panel);
  row_scale = memory_.as<float>(at_row_scale);
  row_offset = memory_.as<float>(at_row_offset);
  scale = memory_.as<float>(at_scale);
  offset = memory_.as<float>(at_offset);
  w = memory_.as<float>(at_w);
  c[0] = memory_.as<float>(at_c0);
  c[1] = memory_.as<float>(at_c1);
}

namespace {

uint32_t rows_of(const Phase& phase, const StepState& state) {
  return phase.head ? state.head_rows : state.rows;
}

void gemv(const LinearPart& part, uint32_t m, uint64_t n0, uint64_t n1) {
  const BoundWeight& w = *part.weight;
  apr_cpu_gemv args{};
  args.struct_size = sizeof(args);
  args.m = m;
  args.n = n1 - n0;
  args.k = w.weight.k;
  args.w = w.data + n0 * w.row_bytes;
  args.row_bytes = w.row_bytes;
  if (w.gemv.integer()) {
    args.x_stride = part.quantized->stride;
    args.q = part.quantized->q;
    args.scale = part.quantized->scale;
    args.sum = part.quantized->sum16;
  } else {
    args.x_stride = part.in->stride;
    args.x = part.in->data;
  }
  args.y = part.out->data + n0;
  args.y_stride = part.out->stride;
  w.gemv.kernel.fn(&args);
  if (part.bias)
    for (uint32_t i = 0; i < m; ++i) {
      float* y = out_row(*part.out, i);
      for (uint64_t n = n0; n < n1; ++n) y[n] += part.bias[n];
    }
}

void quantize_act(const LinearUnit& u, const StepState& state, uint32_t row, uint64_t n0, uint64_t n1) {
  if (!u.act_quantized) return;
  state.kernels->quantize(out_row(*u.act, row), n0, n1, u.act_quantized->row(row));
  if (n1 == u.act->width) row_ops::pad_quantized(*u.act_quantized, row);
}

// SWIGLU of columns [n0, n1), and their quantisation.
void activate(const LinearUnit& u, const StepState& state, uint32_t m, uint64_t n0, uint64_t n1) {
  for (uint32_t i = 0; i < m; ++i) {
    state.kernels->swiglu(out_row(*u.part.out, i) + n0, out_row(*u.up.out, i) + n0, n1 - n0,
                          out_row(*u.act, i) + n0);
    quantize_act(u, state, i, n0, n1);
  }
}

// Weights that the thread will unpack next: they are asked for while the present ones are multiplied. Without that, a third
// of a prompt's time is spent waiting for memory, since a row's piece of a panel is too short for the hardware to see.
struct Upcoming {
  const uint8_t* first = nullptr;  // of the first row
  uint64_t row_bytes = 0, bytes = 0;
  uint32_t rows = 0;

  void prefetch(uint32_t row) const {
    if (row >= rows) return;
    const uint8_t* p = first + row * row_bytes;
    for (uint64_t i = 0; i < bytes; i += 64) __builtin_prefetch(p + i, 0, 2);
  }
};

// Columns [k0, k0 + k_step) of a weight's rows [n0, n0 + kPanelRows), as far as there are any.
Upcoming piece(const BoundWeight& w, uint64_t n0, uint64_t k0) {
  if (n0 >= w.weight.n) return {};
  const uint64_t block_columns = w.weight.format->block_elements, block_bytes = w.weight.format->block_bytes;
  const uint64_t cols = std::min(w.gemm.k_step, w.weight.k - k0);
  return {w.data + n0 * w.row_bytes + k0 / block_columns * block_bytes, w.row_bytes,
          cols / block_columns * block_bytes,
          static_cast<uint32_t>(std::min<uint64_t>(kPanelRows, w.weight.n - n0))};
}

// Scales of groups to scales of the panel's blocks or halves of them, `step` of which share one; zeros behind the last.
bool spread_scales(const Kernels& kernels, const float* from, uint64_t stride, uint32_t groups, uint32_t step,
                   uint32_t scales, float* to) {
  const bool any = kernels.transpose(from, stride, groups, to);
  if (step > 1)
    for (uint32_t s = std::min(scales, groups * step); s-- > 0;)
      std::memmove(to + s * kPanelRows, to + s / step * kPanelRows, kPanelRows * sizeof(float));
  for (uint32_t s = groups * step; s < scales; ++s)
    std::memset(to + s * kPanelRows, 0, kPanelRows * sizeof(float));
  return any;
}

// Rows [n0, n0 + n) of W, columns [k0, k0 + cols), as a panel; columns are filled up with zeros to a block of 32, and rows
// to kPanelRows.
IntPanel unpack_panel(const BoundWeight& w, const Kernels& kernels, LinearWorkspace& ws, uint64_t n0,
                      uint32_t n, uint64_t k0, uint64_t cols, const Upcoming& next) {
  IntPanel panel{};
  panel.blocks = static_cast<uint32_t>((cols + kActBlock - 1) / kActBlock);
  panel.subs = w.group == 16 ? 2 : 1;
  const uint64_t padded = uint64_t{panel.blocks} * kActBlock, stride = ws.k_step / 16;
  const auto groups = static_cast<uint32_t>((cols + w.group - 1) / w.group);
  if (w.gemm.unpack_rows.fn) {
    const apr_cpu_unpack rows = {
        sizeof rows,   n,     w.data + n0 * w.row_bytes, w.row_bytes, k0, cols, ws.q, padded, ws.row_scale,
        ws.row_offset, stride};
    w.gemm.unpack_rows.fn(&rows);
  }
  for (uint32_t r = 0; r < kPanelRows; ++r) {
    int8_t* q = ws.q + r * padded;
    if (r < n && w.gemm.unpack_rows.fn) {
      next.prefetch(r);
    } else if (r < n) {
      w.gemm.unpack_int.fn(w.data + (n0 + r) * w.row_bytes, k0, cols, q, ws.row_scale + r * stride,
                           ws.row_offset + r * stride);
      next.prefetch(r);
    } else {
      std::memset(ws.row_scale + r * stride, 0, groups * sizeof(float));
      std::memset(ws.row_offset + r * stride, 0, groups * sizeof(float));
    }
    const uint64_t filled = r < n ? cols : 0;
    if (filled != padded) std::memset(q + filled, 0, padded - filled);
  }
  const uint32_t scales = panel.blocks * panel.subs, step = w.group * panel.subs / kActBlock;
  (void)spread_scales(kernels, ws.row_scale, stride, groups, step, scales, ws.scale);
  const bool any_offset = spread_scales(kernels, ws.row_offset, stride, groups, step, scales, ws.offset);
  panel.kind = kernels.pack(ws.q, panel.blocks, ws.panel);
  panel.w = ws.panel;
  panel.scale = ws.scale;
  panel.offset = any_offset ? ws.offset : nullptr;
  return panel;
}

void gemm_int(const LinearPart& part, LinearWorkspace& ws, uint64_t n0, uint32_t n, uint32_t m0, uint32_t m1,
              float* c, const Upcoming& then) {
  const BoundWeight& w = *part.weight;
  const Quantized& x = *part.quantized;
  const uint64_t blocks = x.stride / kActBlock;
  for (uint64_t k = 0; k < w.weight.k; k += w.gemm.k_step) {
    const bool last = w.weight.k - k <= w.gemm.k_step;
    const IntPanel panel =
        unpack_panel(w, *w.gemm.kernels, ws, n0, n, k, std::min(w.gemm.k_step, w.weight.k - k),
                     last ? then : piece(w, n0, k + w.gemm.k_step));
    const uint64_t at = k / kActBlock;
    GemmInt g{};
    g.panel = &panel;
    g.m = m1 - m0;
    g.stride = x.stride;
    g.q = x.q + m0 * x.stride + k;
    g.scale = x.scale + m0 * blocks + at;
    g.sum16 = x.sum16 + 2 * (m0 * blocks + at);
    g.sum32 = x.sum32 + m0 * blocks + at;
    g.bias16 = x.bias16 + 2 * (m0 * blocks + at);
    g.bias32 = x.bias32 + m0 * blocks + at;
    g.c = c;
    g.accumulate = k > 0;
    w.gemm.kernels->gemm_int(g);
  }
}

void gemm_float(const LinearPart& part, LinearWorkspace& ws, uint64_t n0, uint32_t n, uint32_t m0,
                uint32_t m1, float* c, const Upcoming& then) {
  const BoundWeight& w = *part.weight;
  for (uint64_t k = 0; k < w.weight.k; k += w.gemm.k_step) {
    const bool last = w.weight.k - k <= w.gemm.k_step;
    const Upcoming next = last ? then : piece(w, n0, k + w.gemm.k_step);
    const uint64_t cols = std::min(w.gemm.k_step, w.weight.k - k), padded = round_up(cols, 16);
    for (uint32_t half = 0; half < n; half += kPanelRows / 2) {
      const uint32_t count = std::min(n - half, kPanelRows / 2);
      for (uint32_t r = 0; r < kPanelRows / 2; ++r) {
        float* row = ws.w + r * padded;
        if (r < count) {
          w.gemm.unpack_float.fn(w.data + (n0 + half + r) * w.row_bytes, k, cols, row);
          next.prefetch(half + r);
        }
        const uint64_t filled = r < count ? cols : 0;
        if (filled != padded) std::memset(row + filled, 0, (padded - filled) * sizeof(float));
      }
      GemmFloat g{};
      g.w = ws.w;
      g.w_stride = padded;
      g.rows = static_cast<uint32_t>(round_up(count, 4));
      g.k = padded;
      g.m = m1 - m0;
      g.x = part.in->data + m0 * part.in->stride + k;
      g.x_stride = part.in->stride;
      g.c = c + half;
      g.accumulate = k > 0;
      w.gemm.kernels->gemm_float(g);
    }
  }
}

// One product's tile, without its bias.
void gemm(const LinearPart& part, LinearWorkspace& ws, uint64_t n0, uint32_t n, uint32_t m0, uint32_t m1,
          float* c, const Upcoming& then) {
  if (part.weight->gemm.integer())
    gemm_int(part, ws, n0, n, m0, m1, c, then);
  else
    gemm_float(part, ws, n0, n, m0, m1, c, then);
}

void store_rows(const LinearPart& part, const StepState& state, uint64_t n0, uint32_t n, uint32_t m0,
                uint32_t m1, const float* c) {
  const float* bias = part.bias ? part.bias + n0 : nullptr;
  state.kernels->store_tile(c, m1 - m0, n, bias, out_row(*part.out, m0) + n0, part.out->stride);
}

bool read_later(const Value& v) { return v.last > v.born; }

}  // namespace

void run_gemv(const Phase& phase, const StepState& state, uint64_t begin, uint64_t end) {
  const uint32_t m = rows_of(phase, state);
  for (size_t i = 0; i < phase.units.size() && begin < end; ++i) {
    const LinearUnit& u = phase.units[i];
    const uint64_t next = i + 1 < phase.units.size() ? phase.units[i + 1].gemv_begin : phase.gemv_tasks;
    if (begin >= next) continue;
    const uint64_t to = std::min(end, next), n = u.part.weight->weight.n;
    const uint64_t n0 = (begin - u.gemv_begin) * u.tile_rows,
                   n1 = std::min(n, (to - u.gemv_begin) * u.tile_rows);
    gemv(u.part, m, n0, n1);
    if (u.act) {
      gemv(u.up, m, n0, n1);
      activate(u, state, m, n0, n1);
    }
    begin = to;
  }
}

void run_gemm(const Phase& phase, const StepState& state, LinearWorkspace& ws, uint64_t task, uint32_t m0,
              uint32_t m1) {
  size_t i = phase.units.size() - 1;
  while (task < phase.units[i].gemm_begin) --i;
  const LinearUnit& u = phase.units[i];
  const uint64_t n0 = (task - u.gemm_begin) * kPanelRows;
  const auto n = static_cast<uint32_t>(std::min<uint64_t>(kPanelRows, u.part.weight->weight.n - n0));
  const Upcoming next_panel = piece(*u.part.weight, n0 + kPanelRows, 0);
  gemm(u.part, ws, n0, n, m0, m1, ws.c[0], u.act ? piece(*u.up.weight, n0, 0) : next_panel);
  if (!u.act) return store_rows(u.part, state, n0, n, m0, m1, ws.c[0]);
  gemm(u.up, ws, n0, n, m0, m1, ws.c[1], next_panel);
  // The SWIGLU takes both tiles from the cache; nobody else reads them but a tap.
  if (state.tapped || read_later(*u.part.out)) store_rows(u.part, state, n0, n, m0, m1, ws.c[0]);
  if (state.tapped || read_later(*u.up.out)) store_rows(u.up, state, n0, n, m0, m1, ws.c[1]);
  for (int side = 0; side < 2; ++side)
    if (const float* bias = side == 0 ? u.part.bias : u.up.bias)
      state.kernels->store_tile(ws.c[side], m1 - m0, n, bias + n0, ws.c[side], kPanelRows);
  for (uint32_t m = m0; m < m1; ++m) {
    const uint64_t at = uint64_t{m - m0} * kPanelRows;
    state.kernels->swiglu(ws.c[0] + at, ws.c[1] + at, n, out_row(*u.act, m) + n0);
    quantize_act(u, state, m, n0, n0 + n);
  }
}

}  // namespace apr::cpu
