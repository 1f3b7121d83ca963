// From the plan's list of operations to phases. Operations have no effects but their outputs, so one may join an earlier
// phase as soon as its inputs are there: this is how q, k and v meet although norms and rotations lie between them.
#include <algorithm>

#include "failure.h"
#include "plan_check.h"
#include "program.h"
#include "row_ops.h"

namespace apr::cpu {
namespace {

// Rows are whole cache lines for q as for floats. A stride of whole pages would put the same columns of all rows into the
// same cache sets.
uint64_t stride_of(uint64_t width) {
  const uint64_t stride = round_up(width, kRowPadding);
  return stride % 1024 == 0 ? stride + 64 : stride;
}

class Builder {
 public:
  Builder(const CheckedPlan& checked, const ProgramOptions& options, Program& program)
      : c_(checked), o_(options), p_(program) {}

  void build() {
    const apr_plan& plan = c_.plan;
    p_.ops = c_.ops;
    p_.op_phase.assign(p_.ops.size(), -1);
    p_.weights.resize(plan.n_weights);
    for (const uint32_t width : c_.widths) new_value(width, false);
    for (uint32_t i = 0; i < p_.ops.size(); ++i)
      if (i >= plan.head_op) p_.values[static_cast<size_t>(p_.ops[i].out)]->head = true;
    quantized_of_.assign(p_.values.size(), {nullptr, nullptr});
    float_of_.assign(p_.values.size(), {nullptr, nullptr});
    mark_integer_inputs();
    for (op_ = 0; op_ < p_.ops.size(); ++op_) place(p_.ops[op_]);
    p_.logits = p_.values[static_cast<size_t>(plan.logits)].get();
    p_.head_phase = static_cast<uint32_t>(p_.phases.size());
    for (uint32_t i = static_cast<uint32_t>(p_.phases.size()); i-- > 0;)
      if (p_.phases[i].head) p_.head_phase = i;
    for (Phase& phase : p_.phases) number_tasks(phase);
  }

 private:
  Value* new_value(uint32_t width, bool head) {
    p_.values.push_back(std::make_unique<Value>());
    Value& v = *p_.values.back();
    v.width = width;
    v.stride = stride_of(width);
    v.head = head;
    return &v;
  }
  Value* value(int32_t index) { return p_.values[static_cast<size_t>(index)].get(); }
  bool head() const { return op_ >= c_.plan.head_op; }
  Input input(const Value* v) const { return {v, head() && !v->head}; }

  BoundWeight* weight(int32_t index) {
    auto& slot = p_.weights[static_cast<size_t>(index)];
    if (!slot) slot = std::make_unique<BoundWeight>(bind_weight(c_.plan.weights[index]));
    return slot.get();
  }
  const BoundWeight* linear_weight(int32_t index) {
    BoundWeight* w = weight(index);
    bind_linear(*w, *o_.chooser, p_.choices);
    p_.k_step = std::max(p_.k_step, w->gemm.k_step);
    return w;
  }
  const BoundWeight* embed_weight(int32_t index) {
    BoundWeight* w = weight(index);
    bind_embed(*w, *o_.chooser, p_.choices);
    return w;
  }

  // Values that some integer product reads row by row: their producers quantise them on the way. (A product of wanted
  // tokens only that reads a value of all tokens quantises the rows that it needs.)
  void mark_integer_inputs() {
    integer_input_.assign(p_.values.size(), false);
    for (uint32_t i = 0; i < p_.ops.size(); ++i) {
      const apr_op& op = p_.ops[i];
      if (op.kind != APR_OP_LINEAR) continue;
      const BoundWeight& w = *linear_weight(op.weight[0]);
      if (!w.gemv.integer() && !w.gemm.integer()) continue;
      if (value(op.in[0])->head == (i >= c_.plan.head_op))
        integer_input_[static_cast<size_t>(op.in[0])] = true;
    }
  }

  // ---- phases ----------------------------------------------------------------------------------------------------------

  void note(int32_t phase) {
    p_.op_phase[op_] = phase;
    p_.phases[static_cast<size_t>(phase)].ops.push_back(op_);
  }
  // The phases of wanted tokens may run several times in a step: what they take from all tokens lives to its end.
  void read(const Value* v, int32_t phase) const {
    const_cast<Value*>(v)->last = head() && !v->head ? INT32_MAX : std::max(v->last, phase);
  }

  int32_t add_phase(PhaseKind kind) {
    p_.phases.emplace_back();
    p_.phases.back().kind = kind;
    p_.phases.back().head = head();
    return static_cast<int32_t>(p_.phases.size()) - 1;
  }

  // First phase of a kind, from `from` on, that `fits`; a new one when there is none.
  template <class Fits>
  int32_t find_phase(PhaseKind kind, int32_t from, Fits&& fits) {
    for (int32_t i = std::max(from, 0); i < static_cast<int32_t>(p_.phases.size()); ++i) {
      const Phase& phase = p_.phases[static_cast<size_t>(i)];
      if (phase.kind == kind && phase.head == head() && fits(phase)) return i;
    }
    return add_phase(kind);
  }

  // A row's chain runs in order, so a row op may join the phase that makes its inputs if that is a chain too.
  int32_t place_row(RowOp op, uint64_t floats) {
    op.head = head();
    int32_t ready = 0;
    if (op.a.value) ready = std::max(ready, op.a.value->born);
    if (op.b.value) ready = std::max(ready, op.b.value->born);
    const int32_t phase = find_phase(PhaseKind::Rows, ready, [](const Phase&) { return true; });
    if (op.a.value) read(op.a.value, phase);
    if (op.b.value) read(op.b.value, phase);
    if (op.out && op.out->born < 0) op.out->born = op.out->last = phase;
    if (op.quantized) op.quantized->born = op.quantized->last = phase;
    p_.phases[static_cast<size_t>(phase)].rows.push_back(op);
    p_.phases[static_cast<size_t>(phase)].row_cost += floats;
    return phase;
  }

  void place_plan_row(RowOp op) {
    note(place_row(op, op.out->width));
    if (integer_input_[static_cast<size_t>(p_.ops[op_].out)]) quantized(op.out);
  }

  // ---- inputs of products ----------------------------------------------------------------------------------------------

  Quantized* new_quantized(const Value* v) {
    p_.quantized.push_back(std::make_unique<Quantized>());
    Quantized& q = *p_.quantized.back();
    q.value = v;
    q.head = head();
    q.stride = v->stride;
    q.born = q.last = -1;
    quantized_of_[index_of(v)][head()] = &q;
    return &q;
  }
  size_t index_of(const Value* v) const {
    for (size_t i = 0; i < quantized_of_.size(); ++i)
      if (p_.values[i].get() == v) return i;
    fail(APR_FAILED, "internal error: a value of the program's own feeds a product");
  }

  // The int8 form of a value, for tokens or for wanted tokens.
  Quantized* quantized(const Value* v) {
    if (Quantized* q = quantized_of_[index_of(v)][head()]) return q;
    RowOp op{};
    op.run = row_ops::quantize;
    op.kernel = "quantize";
    op.a = input(v);
    op.quantized = new_quantized(v);
    place_row(op, v->width / 4);
    return op.quantized;
  }

  // The value itself where its rows stand side by side and padded; otherwise padded in place, or a copy of wanted rows.
  const Value* floats(Value* v) {
    Value*& made = float_of_[index_of(v)][head()];
    if (made) return made;
    RowOp op{};
    if (head() && !v->head) {
      op.run = row_ops::copy;
      op.kernel = "copy";
      op.a = input(v);
      op.out = new_value(v->width, true);
      place_row(op, v->width);
      return made = op.out;
    }
    if (v->width % kRowPadding != 0) {
      op.run = row_ops::pad;
      op.kernel = "pad";
      op.a = input(v);
      op.out = v;
      place_row(op, 0);
    }
    return made = v;
  }

  // ---- operations ------------------------------------------------------------------------------------------------------

  void place(const apr_op& op) {
    RowOp row{};
    if (op.in[0] >= 0) row.a = input(value(op.in[0]));
    if (op.in[1] >= 0) row.b = input(value(op.in[1]));
    row.out = value(op.out);
    switch (op.kind) {
      case APR_OP_EMBED:
        row.a = row.b = {};
        row.run = row_ops::embed;
        row.kernel = "embed";
        row.weight = embed_weight(op.weight[0]);
        p_.n_tokens_known = static_cast<uint32_t>(
            std::min<uint64_t>(p_.n_tokens_known ? p_.n_tokens_known : UINT32_MAX, row.weight->weight.n));
        return place_plan_row(row);
      case APR_OP_RMS_NORM:
        row.b = {};
        row.run = row_ops::rms_norm;
        row.kernel = "rms_norm";
        row.vector = c_.vectors[static_cast<size_t>(op.vector[0])].data;
        row.heads = op.n_heads;
        row.eps = op.eps;
        return place_plan_row(row);
      case APR_OP_LINEAR:
        return place_linear(op);
      case APR_OP_ROPE:
        row.b = {};
        row.run = op.rope == APR_ROPE_ADJACENT ? row_ops::rope_adjacent : row_ops::rope_halves;
        row.kernel = op.rope == APR_ROPE_ADJACENT ? "rope_adjacent" : "rope_halves";
        row.rope = rope_table(op);
        row.heads = op.n_heads;
        row.head_dim = op.head_dim;
        return place_plan_row(row);
      case APR_OP_ATTENTION:
        return place_attention(op);
      case APR_OP_ADD:
        row.run = row_ops::add;
        row.kernel = "add";
        return place_plan_row(row);
      case APR_OP_SWIGLU:
        if (place_in_unit(op)) return;
        row.run = row_ops::swiglu;
        row.kernel = "swiglu";
        return place_plan_row(row);
    }
  }

  void place_linear(const apr_op& op) {
    LinearUnit unit;
    LinearPart& part = unit.part;
    part.weight = linear_weight(op.weight[0]);
    part.bias = op.vector[0] >= 0 ? c_.vectors[static_cast<size_t>(op.vector[0])].data : nullptr;
    part.out = value(op.out);
    part.op = op_;
    int32_t ready = -1;
    Value* in = value(op.in[0]);
    // Both, where few tokens and many are multiplied in different ways.
    if (part.weight->gemv.integer() || part.weight->gemm.integer()) {
      part.quantized = quantized(in);
      ready = part.quantized->born;
    }
    if (!part.weight->gemv.integer() || !part.weight->gemm.integer()) {
      part.in = floats(in);
      // A value that was padded in place is ready only after that chain.
      ready = std::max(ready, in->width % kRowPadding != 0 && part.in == in ? padded_in(in) : part.in->born);
    }
    const int32_t phase = find_phase(PhaseKind::Linear, ready + 1, [&](const Phase& p) {
      const LinearPart& first = p.units[0].part;
      return !o_.apart && p_.ops[first.op].in[0] == op.in[0];
    });
    if (part.quantized) const_cast<Quantized*>(part.quantized)->last = std::max(part.quantized->last, phase);
    if (part.in) read(part.in, phase);
    part.out->born = part.out->last = phase;
    p_.phases[static_cast<size_t>(phase)].units.push_back(unit);
    note(phase);
  }
  int32_t padded_in(const Value* v) const {
    for (size_t i = 0; i < p_.phases.size(); ++i)
      for (const RowOp& row : p_.phases[i].rows)
        if (row.run == row_ops::pad && row.out == v && row.head == v->head) return static_cast<int32_t>(i);
    return v->born;
  }

  // SWIGLU of two products of one phase: computed by the task that computes the columns.
  bool place_in_unit(const apr_op& op) {
    const Value *gate = value(op.in[0]), *up = value(op.in[1]);
    if (gate == up || gate->born != up->born || gate->head != head() || up->head != head()) return false;
    Phase& phase = p_.phases[static_cast<size_t>(gate->born)];
    if (phase.kind != PhaseKind::Linear) return false;
    const auto unit_of = [&](const Value* v) {
      return std::find_if(phase.units.begin(), phase.units.end(),
                          [&](const LinearUnit& u) { return u.part.out == v && !u.act; });
    };
    if (unit_of(gate) == phase.units.end() || unit_of(up) == phase.units.end()) return false;
    const LinearPart up_part = unit_of(up)->part;
    phase.units.erase(unit_of(up));
    LinearUnit& unit = *unit_of(gate);
    unit.up = up_part;
    unit.act = value(op.out);
    unit.act->born = unit.act->last = gate->born;
    if (integer_input_[static_cast<size_t>(op.out)]) {
      unit.act_quantized = new_quantized(unit.act);
      unit.act_quantized->born = unit.act_quantized->last = gate->born;
    }
    note(gate->born);
    return true;
  }

  RopeTable* rope_table(const apr_op& op) {
    const float* frequencies = c_.vectors[static_cast<size_t>(op.vector[0])].data;
    for (const auto& r : p_.ropes)
      if (r->frequencies == frequencies && r->dims == op.rope_dims && r->scale == op.scale) return r.get();
    p_.ropes.push_back(std::make_unique<RopeTable>());
    RopeTable* table = p_.ropes.back().get();
    *table = {frequencies, op.rope_dims, op.scale};
    // It belongs to the first chain of all tokens, which precedes every use.
    RowOp row{};
    row.run = row_ops::rope_table;
    row.kernel = "rope_table";
    row.rope = table;
    row.head = false;
    if (p_.phases.empty() || p_.phases[0].kind != PhaseKind::Rows || p_.phases[0].head)
      fail(APR_UNSUPPORTED,
           "%s: a rotary embedding in a plan that does not begin with an operation on all tokens", op.stage);
    auto& rows = p_.phases[0].rows;
    rows.insert(rows.begin(), row);
    p_.phases[0].row_cost += 8 * op.rope_dims;  // a sine costs as much as many additions
    return table;
  }

  void place_attention(const apr_op& op) {
    p_.caches.push_back(std::make_unique<KvCache>());
    KvCache* kv = p_.caches.back().get();
    kv->heads = op.n_kv_heads;
    kv->head_dim = op.head_dim;
    kv->padded = static_cast<uint32_t>(round_up(op.head_dim, 16));
    kv->positions = static_cast<uint32_t>(round_up(o_.n_ctx, kTileKeys));  // tiles are read whole
    kv->element_bytes = o_.precise ? 4 : 2;
    // In floating point, where nothing wraps: a product of 64 bits that did would be a small cache.
    const double bytes = 2.0 * o_.n_sequences * kv->heads * kv->positions * kv->padded * kv->element_bytes;
    if (bytes * static_cast<double>(c_.ops.size()) > 0x1p62)
      fail(APR_NO_MEMORY,
           "the KV cache of %u sequences of %u positions needs more memory than can be addressed; ask for "
           "less",
           o_.n_sequences, o_.n_ctx);

    RowOp store{};
    store.run = o_.precise ? row_ops::store_float : row_ops::store_half;
    store.kernel = "store_kv";
    store.a = input(value(op.in[1]));
    store.b = input(value(op.in[2]));
    store.kv = kv;
    const int32_t stored = place_row(store, store.a.value->width);

    const uint32_t group = op.n_heads / op.n_kv_heads;
    AttentionShape* shape = nullptr;
    for (const auto& s : p_.shapes)
      if (s->group == group && s->kv_heads == op.n_kv_heads) shape = s.get();
    if (!shape) {
      p_.shapes.push_back(std::make_unique<AttentionShape>());
      shape = p_.shapes.back().get();
      shape->group = group;
      shape->kv_heads = op.n_kv_heads;
      shape->blocks.reserve(o_.n_batch);
    }
    p_.query_rows = std::max({p_.query_rows, group, kBlockQueries});
    p_.padded = std::max(p_.padded, kv->padded);

    const Value* q = value(op.in[0]);
    int32_t phase = add_phase(PhaseKind::Attention);
    if (phase <= std::max(stored, q->born))
      fail(APR_FAILED, "internal error: %s is placed before its inputs", op.stage);
    Value* out = value(op.out);
    AttentionOp& a = p_.phases.back().attention;
    a = {input(q), out, kv, shape, op.n_heads, op.window, op.scale, op_};
    read(q, phase);
    out->born = out->last = phase;
    note(phase);
    if (integer_input_[static_cast<size_t>(op.out)]) quantized(out);
  }

  struct Pair {
    Quantized* of[2];
    Quantized*& operator[](bool head) { return of[head]; }
  };
  struct FloatPair {
    Value* of[2];
    Value*& operator[](bool head) { return of[head]; }
  };

  const CheckedPlan& c_;
  const ProgramOptions& o_;
  Program& p_;
  uint32_t op_ = 0;  // the operation that is being placed
  std::vector<bool> integer_input_;
  std::vector<Pair> quantized_of_;  // by value: for all tokens, for wanted tokens
  std::vector<FloatPair> float_of_;
};

}  // namespace

void number_tasks(Phase& phase) {
  phase.gemv_tasks = phase.gemm_tasks = 0;
  for (LinearUnit& u : phase.units) {
    const BoundWeight& w = *u.part.weight;
    const uint64_t row_bytes = w.row_bytes + (u.act ? u.up.weight->row_bytes : 0);
    // An int8 block of a SWIGLU's result lies in one task; without it, 16 rows are what derived kernels decode together.
    const uint64_t unit = u.act ? kActBlock : 16;
    u.tile_rows = static_cast<uint32_t>(
        std::clamp<uint64_t>(round_up(w.gemv.choice.task_bytes / row_bytes, unit), unit, 4096));
    u.gemv_begin = phase.gemv_tasks;
    u.gemm_begin = phase.gemm_tasks;
    phase.gemv_tasks += (w.weight.n + u.tile_rows - 1) / u.tile_rows;
    phase.gemm_tasks += (w.weight.n + kPanelRows - 1) / kPanelRows;
  }
}

Program build_program(const apr_plan* plan, const ProgramOptions& options) {
  const CheckedPlan checked = check_plan(plan);
  Program program;
  program.n_vocab = checked.plan.n_vocab;
  Builder(checked, options, program).build();

  program.head_rows = std::min(kHeadRows, options.n_batch);
  allocate_activations(program, options.n_batch);

  Layout layout;
  std::vector<uint64_t> at;
  for (const auto& kv : program.caches) {
    at.push_back(layout.add(kv->k_bytes(options.n_sequences)));
    at.push_back(layout.add(kv->v_bytes(options.n_sequences)));
  }
  program.kv = Memory(layout.bytes(), "the KV cache");
  for (size_t i = 0; i < program.caches.size(); ++i) {
    program.caches[i]->k = program.kv.as<uint8_t>(at[2 * i]);
    program.caches[i]->v = program.kv.as<uint8_t>(at[2 * i + 1]);
  }

  Layout tables;
  std::vector<uint64_t> table_at;
  for (const auto& rope : program.ropes)
    table_at.push_back(tables.add(uint64_t{options.n_batch} * rope->dims * sizeof(float)));
  program.ropes_memory = Memory(tables.bytes(), "rotary tables");
  for (size_t i = 0; i < program.ropes.size(); ++i)
    program.ropes[i]->data = program.ropes_memory.as<float>(table_at[i]);
  return program;
}

}  // namespace apr::cpu
