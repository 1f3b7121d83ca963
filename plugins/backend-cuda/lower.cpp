// Plan operations become launches. Small batches (exact m) read float activations and fold norms, rotations and additions
// into their GEMVs and attention; large ones (m = 0) convert activations once for tensor cores.
#include "plugins/backend-cuda/lower.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <map>

#include "plugins/backend-cuda/failure.h"
#include "ptx-templates/args.h"

namespace apr::cuda {

namespace {

Output output_of(Form form) {
  switch (form) {
    case Form::Float:
      return kOutputFloat;
    case Form::Int8:
      return kOutputInt8;
    case Form::F16:
      return kOutputF16;
    case Form::Bf16x2:
      return kOutputBf16x2;
    case Form::F16x2:
      return kOutputF16x2;
    case Form::Token:
    case Form::Candidates:
      break;
  }
  throw failure(APR_FAILED, "results are no activations");
}

Input input_of(Form form) {
  switch (form) {
    case Form::Float:
      return kInputFloat;
    case Form::Int8:
      return kInputInt8;
    case Form::F16:
      return kInputF16;
    case Form::Bf16x2:
      return kInputBf16x2;
    case Form::F16x2:
      return kInputF16x2;
    case Form::Token:
    case Form::Candidates:
      break;
  }
  throw failure(APR_FAILED, "results are no activations");
}

// A kernel finds a power of two of them, so that one in the cache serves many wishes.
uint32_t candidates_of_kernel(uint32_t wanted, uint32_t n_vocab) {
  return std::min(n_vocab, std::max(64u, std::bit_ceil(wanted)));
}

class Lowering {
 public:
  Lowering(const apr_plan& plan, uint32_t m, bool head, const LowerOptions& options)
      : plan_(plan),
        options_(options),
        flow_(analyse(plan)),
        patterns_(find_patterns(flow_, m, options)),
        done_(plan.n_ops, false),
        buffer_of_(plan.n_values, -1) {
    program_.m = m;
    program_.head = head;
    for (const int32_t value : crossing_values(plan)) crossing_.push_back(value);
  }

  Program run() {
    if (program_.head)
      for (const int32_t value : crossing_)
        buffer_of_[static_cast<size_t>(value)] =
            add_buffer(Form::Float, width(value), value, Buffer::Place::Inlet);
    for (uint32_t i = 0; i < plan_.n_ops; ++i) {
      if (plan_.ops[i]->kind == APR_OP_ATTENTION) attention_index_[i] = n_attentions_++;
      if (done_[i] || patterns_.absorbed[i] || flow_.is_head(static_cast<int32_t>(i)) != program_.head)
        continue;
      lower(i, *plan_.ops[i]);
    }
    if (program_.head) {
      Step& step = add(Op::Argmax, "argmax", {});
      step.input[0] = buffer_of_[static_cast<size_t>(plan_.logits)];
      step.spec.constants = {{"kN", plan_.n_vocab}};
      step.outputs = {add_buffer(Form::Token, 1, -1, Buffer::Place::Outlet)};
    }
    if (program_.head && options_.n_top > 0) {
      const uint32_t k = candidates_of_kernel(options_.n_top, plan_.n_vocab);
      Step& step = add(Op::TopK, "top_k", {});
      step.input[0] = buffer_of_[static_cast<size_t>(plan_.logits)];
      step.spec.constants = {{"kN", plan_.n_vocab}, {"kTopK", k}};
      step.outputs = {add_buffer(Form::Candidates, k, -1, Buffer::Place::Outlet)};
      program_.top = true;
    }
    return std::move(program_);
  }

 private:
  uint32_t width(int32_t value) const { return plan_.values[value]->width; }

  int32_t add_buffer(Form form, uint32_t columns, int32_t value, Buffer::Place place = Buffer::Place::Arena) {
    program_.buffers.push_back({form, columns, value, place});
    return static_cast<int32_t>(program_.buffers.size() - 1);
  }

  // The buffer of a value: made by whoever asks first, which is its producer.
  int32_t buffer(int32_t value) {
    int32_t& index = buffer_of_[static_cast<size_t>(value)];
    if (index < 0) {
      const bool crosses = std::find(crossing_.begin(), crossing_.end(), value) != crossing_.end();
      if (written_as_int8(value))
        index = add_buffer(Form::Int8, width(value), -1);
      else
        index = add_buffer(Form::Float, width(value), value,
                           crosses || value == plan_.logits ? Buffer::Place::Outlet : Buffer::Place::Arena);
    }
    return index;
  }

  // Results of attention and SwiGLU that only integer GEMVs read are quantised by whoever makes them, once, instead of by
  // every CTA of the reader.
  bool written_as_int8(int32_t value) const {
    const int32_t made_by = flow_.producer[static_cast<size_t>(value)];
    const apr_op_kind kind = flow_.op(made_by).kind;
    if (!options_.fuse || program_.m == 0 || value == plan_.logits || width(value) % 32 != 0) return false;
    // A SwiGLU of float matrices is the float GEMV's, which writes floats; one that is a kernel of its own does, too.
    if (kind == APR_OP_SWIGLU) {
      const int32_t gate = flow_.producer[static_cast<size_t>(flow_.op(made_by).in[0])];
      if (!patterns_.absorbed[static_cast<size_t>(made_by)] || view(flow_.op(gate)) != View::Int)
        return false;
    } else if (kind != APR_OP_ATTENTION || flow_.op(made_by).head_dim % kActBlock != 0) {
      return false;
    }
    const std::vector<uint32_t>& readers = flow_.readers[static_cast<size_t>(value)];
    return !readers.empty() && std::all_of(readers.begin(), readers.end(), [&](uint32_t r) {
      return plan_.ops[r]->kind == APR_OP_LINEAR && flow_.is_head(static_cast<int32_t>(r)) == program_.head &&
             view(*plan_.ops[r]) == View::Int;
    });
  }

  Step& add(Op op, const std::string& stage, std::vector<uint32_t> ops) {
    Step step;
    // Linears and attention keep an exact number of rows in registers. The others have a CTA per row, and one kernel of
    // each serves all programs.
    step.spec = {op, View::None, op == Op::Linear || op == Op::Attention ? program_.m : 0, 0, {}, {}};
    step.stage = stage;
    for (const uint32_t i : ops) done_[i] = true;
    step.ops = std::move(ops);
    program_.steps.push_back(std::move(step));
    return program_.steps.back();
  }

  void lower(uint32_t i, const apr_op& op) {
    switch (op.kind) {
      case APR_OP_EMBED: {
        Step& step = add(Op::Embed, op.stage, {i});
        step.spec.view = View::Float;
        step.spec.k = width(op.out);
        add_segment(step, op);
        step.outputs = {buffer(op.out)};
        return;
      }
      case APR_OP_RMS_NORM:
        norm(i, buffer(op.out), Form::Float);
        return;
      case APR_OP_LINEAR:
        linear(i);
        return;
      case APR_OP_ROPE: {
        Step& step = add(Op::Rope, op.stage, {i});
        step.spec.constants = attention_constants(op, op.n_heads, 0, op.head_dim, &op, false);
        step.input[0] = buffer(op.in[0]);
        step.outputs = {buffer(op.out)};
        step.frequencies = op.vector[0];
        step.rope_scale = op.scale;
        return;
      }
      case APR_OP_ATTENTION:
        attention(i);
        return;
      case APR_OP_ADD:
        elementwise(Op::Add, i);
        return;
      case APR_OP_SWIGLU:
        elementwise(Op::Swiglu, i);
        return;
    }
    throw failure(APR_UNSUPPORTED, "stage {}: operation kind {} is newer than this backend", op.stage,
                  static_cast<int>(op.kind));
  }

  void elementwise(Op kind, uint32_t i) {
    const apr_op& op = *plan_.ops[i];
    Step& step = add(kind, op.stage, {i});
    step.spec.k = width(op.out);
    step.input[0] = buffer(op.in[0]);
    step.input[1] = buffer(op.in[1]);
    step.outputs = {buffer(op.out)};
  }

  void norm(uint32_t i, int32_t output, Form form) {
    const apr_op& op = *plan_.ops[i];
    Step& step = add(Op::RmsNorm, op.stage, {i});
    step.spec.k = op.head_dim;
    step.spec.constants = {{"kGroups", op.n_heads}, {"kOutput", output_of(form)}};
    step.input[0] = buffer(op.in[0]);
    step.norm[0] = op.vector[0];
    step.eps = op.eps;
    step.outputs = {output};
  }

  void add_segment(Step& step, const apr_op& op) {
    const apr_weight& weight = *plan_.weights[op.weight[0]];
    const bool bias = op.kind == APR_OP_LINEAR && op.vector[0] >= 0;
    step.spec.segments.push_back(
        {weight.format->name, weight.format->codec, nullptr, static_cast<uint32_t>(weight.n), bias});
    step.weights.push_back(op.weight[0]);
    step.biases.push_back(bias ? op.vector[0] : -1);
  }

  // ---- linears -----------------------------------------------------------------------------------------------------------

  const apr_codec& codec(const apr_op& op) const { return *plan_.weights[op.weight[0]]->format->codec; }
  View view(const apr_op& op) const {
    return linear_view(*plan_.weights[op.weight[0]], program_.m, options_);
  }

  // The linears that go into one kernel with the first: same input, same view.
  std::vector<uint32_t> segment_ops(uint32_t first) const {
    const apr_op& op = *plan_.ops[first];
    if (!options_.fuse || patterns_.residual_add[first] >= 0) return {first};
    std::vector<uint32_t> group;
    for (uint32_t i = first; i < plan_.n_ops && group.size() < kMaxSegments; ++i) {
      const apr_op& other = *plan_.ops[i];
      if (other.kind != APR_OP_LINEAR || done_[i] || other.in[0] != op.in[0] ||
          patterns_.residual_add[i] >= 0 || patterns_.swiglu[i] != patterns_.swiglu[first] ||
          flow_.is_head(static_cast<int32_t>(i)) != program_.head)
        continue;
      if (view(other) == view(op) &&
          (program_.m != 0 || gemm_input(codec(other), options_) == gemm_input(codec(op), options_)))
        group.push_back(i);
    }
    return group;
  }

  void linear(uint32_t first) {
    const std::vector<uint32_t> group = segment_ops(first);
    const apr_op& op = *plan_.ops[first];
    KernelSpec spec = {Op::Linear, view(op), program_.m, width(op.in[0]), {}, {}};
    Epilogue epilogue = kEpilogueNone;
    int32_t residual = -1;
    std::vector<int32_t> results;
    std::vector<uint32_t> ops = group;
    if (const int32_t add_op = patterns_.residual_add[first]; add_op >= 0) {
      const apr_op& sum = flow_.op(add_op);
      epilogue = kEpilogueResidual;
      residual = buffer(sum.in[0] == op.out ? sum.in[1] : sum.in[0]);
      results = {sum.out};
      ops.push_back(static_cast<uint32_t>(add_op));
    } else if (const int32_t act = patterns_.swiglu[first]; act >= 0 && program_.m != 0) {
      epilogue = kEpilogueSwiglu;
      results = {flow_.op(act).out};
      ops.push_back(static_cast<uint32_t>(act));
    } else {
      for (const uint32_t i : group) results.push_back(plan_.ops[i]->out);
    }
    // The gate is the first segment, whichever the plan names first.
    std::vector<uint32_t> ordered = group;
    if (epilogue == kEpilogueSwiglu && plan_.ops[ordered[0]]->out != flow_.op(patterns_.swiglu[first]).in[0])
      std::swap(ordered[0], ordered[1]);

    // Where the input comes from: a norm that is folded in, a conversion for tensor cores, or the value as it is.
    const int32_t made_by = flow_.producer[static_cast<size_t>(op.in[0])];
    const bool from_norm = patterns_.into_linears[static_cast<size_t>(made_by)];
    const apr_op* folded = nullptr;
    int32_t input = -1;
    if (program_.m == 0) {
      input = converted(op.in[0], from_norm ? made_by : -1, gemm_input(codec(op), options_));
    } else if (from_norm) {
      folded = &flow_.op(made_by);
      input = buffer(folded->in[0]);
      if (!done_[static_cast<size_t>(made_by)]) ops.insert(ops.begin(), static_cast<uint32_t>(made_by));
    } else {
      input = buffer(op.in[0]);
    }

    Step& step = add(Op::Linear, plan_.ops[ordered[0]]->stage, std::move(ops));
    step.spec = std::move(spec);
    for (const uint32_t i : ordered) add_segment(step, *plan_.ops[i]);
    step.spec.constants = {{"kEpilogue", epilogue},
                           {"kNorm", folded != nullptr, Constant::Type::Bool},
                           {"kInput", input_of(program_.buffers[static_cast<size_t>(input)].form)},
                           {"kOutput", kOutputFloat}};
    if (epilogue == kEpilogueSwiglu)
      step.spec.constants.back().value =
          output_of(program_.buffers[static_cast<size_t>(buffer(results[0]))].form);
    step.input[0] = input;
    step.residual = residual;
    if (folded != nullptr) step.norm[0] = folded->vector[0], step.eps = folded->eps;
    for (const int32_t value : results) step.outputs.push_back(buffer(value));
    // Of several tensors each has its own result; with SwiGLU they share one.
    if (epilogue == kEpilogueNone && ordered != group)
      throw failure(APR_FAILED, "stage {}: segments out of order", op.stage);
    if (program_.m == 0) unfuse_swiglu(first);
  }

  // A GEMM writes gate and up; silu(gate) * up is computed where the next linear's input is converted.
  void unfuse_swiglu(uint32_t first) {
    const int32_t act = patterns_.swiglu[first];
    if (act < 0) return;
    const apr_op& op = flow_.op(act);
    const std::vector<uint32_t>& readers = flow_.readers[static_cast<size_t>(op.out)];
    const bool linears =
        op.out != plan_.logits && std::all_of(readers.begin(), readers.end(), [&](uint32_t r) {
          return plan_.ops[r]->kind == APR_OP_LINEAR &&
                 flow_.is_head(static_cast<int32_t>(r)) == program_.head;
        });
    if (linears)
      pending_swiglu_[op.out] = static_cast<uint32_t>(act);
    else
      elementwise(Op::Swiglu, static_cast<uint32_t>(act));
  }

  // The value in the form that a GEMM eats; made once per form.
  int32_t converted(int32_t value, int32_t norm_op, Form form) {
    const auto key = std::make_pair(value, form);
    if (const auto found = copies_.find(key); found != copies_.end()) return found->second;
    const int32_t copy = add_buffer(form, width(value), -1);
    copies_.emplace(key, copy);
    if (norm_op >= 0) {
      norm(static_cast<uint32_t>(norm_op), copy, form);
      return copy;
    }
    const auto swiglu = pending_swiglu_.find(value);
    const bool fused = swiglu != pending_swiglu_.end();
    const int32_t x = buffer(fused ? plan_.ops[swiglu->second]->in[0] : value);
    const int32_t up = fused ? buffer(plan_.ops[swiglu->second]->in[1]) : -1;
    const std::string stage =
        plan_.ops[fused ? swiglu->second : static_cast<uint32_t>(flow_.producer[static_cast<size_t>(value)])]
            ->stage;
    Step& step =
        add(Op::Convert, stage, fused ? std::vector<uint32_t>{swiglu->second} : std::vector<uint32_t>{});
    step.spec.k = width(value);
    step.spec.constants = {{"kOutput", output_of(form)}, {"kSwiglu", fused, Constant::Type::Bool}};
    step.input[0] = x;
    step.input[1] = up;
    step.outputs = {copy};
    return copy;
  }

  // ---- attention -----------------------------------------------------------------------------------------------------------

  std::vector<Constant> attention_constants(const apr_op& op, uint32_t heads, uint32_t kv_heads,
                                            uint32_t head_dim, const apr_op* rope, bool qk_norm) const {
    return {
        {"kHeads", heads},
        {"kKvHeads", kv_heads},
        {"kHeadDim", head_dim},
        {"kRopeDims", rope == nullptr ? 0 : rope->rope_dims},
        {"kRopeKind", rope == nullptr ? static_cast<int64_t>(kRopeNone) : static_cast<int64_t>(rope->rope)},
        {"kQkNorm", qk_norm, Constant::Type::Bool},
        {"kWindow", op.kind == APR_OP_ATTENTION ? op.window : 0}};
  }

  void attention(uint32_t i) {
    const apr_op& op = *plan_.ops[i];
    const AttentionPattern& p = patterns_.attention[i];
    const apr_op* rope = p.found && p.q_rope >= 0 ? &flow_.op(p.q_rope) : nullptr;
    const apr_op* qn = p.found && p.q_norm >= 0 ? &flow_.op(p.q_norm) : nullptr;
    const apr_op* kn = p.found && p.k_norm >= 0 ? &flow_.op(p.k_norm) : nullptr;
    const int32_t q = p.found ? p.q : op.in[0], k = p.found ? p.k : op.in[1];
    std::vector<uint32_t> parts;
    for (const int32_t part : {p.q_norm, p.k_norm, p.q_rope, p.k_rope})
      if (p.found && part >= 0) parts.push_back(static_cast<uint32_t>(part));
    std::sort(parts.begin(), parts.end());
    const auto prepare = [&](Step& step, bool with_q) {
      step.frequencies = rope == nullptr ? -1 : rope->vector[0];
      step.rope_scale = rope == nullptr ? 1.0f : rope->scale;
      if (qn != nullptr) step.norm[0] = qn->vector[0], step.norm[1] = kn->vector[0], step.eps = qn->eps;
      if (with_q) step.input[0] = buffer(q);
      step.input[1] = buffer(k);
      step.input[2] = buffer(op.in[2]);
    };
    const bool fused = options_.fuse && program_.m == 1;
    const bool turns_q = rope != nullptr || qn != nullptr;
    int32_t ready_q = -1;
    if (!fused) {
      Step& store = add(Op::RopeKv, parts.empty() ? op.stage : plan_.ops[parts[0]]->stage, parts);
      store.spec.constants =
          attention_constants(op, turns_q ? op.n_heads : 0, op.n_kv_heads, op.head_dim, rope, qn != nullptr);
      store.cache = attention_index_.at(i);
      prepare(store, turns_q);
      if (turns_q) store.outputs = {buffer(op.in[0])};
      ready_q = buffer(op.in[0]);
    }
    std::vector<uint32_t> ops = fused ? parts : std::vector<uint32_t>{};
    ops.push_back(i);
    Step& step = add(Op::Attention, op.stage, std::move(ops));
    step.spec.constants = attention_constants(op, op.n_heads, op.n_kv_heads, op.head_dim,
                                              fused ? rope : nullptr, fused && qn != nullptr);
    step.spec.constants.push_back({"kFused", fused, Constant::Type::Bool});
    step.cache = attention_index_.at(i);
    step.scale = op.scale;
    if (fused)
      prepare(step, true);
    else
      step.input[0] = ready_q;
    step.outputs = {buffer(op.out)};
    step.spec.constants.push_back(
        {"kOutput", output_of(program_.buffers[static_cast<size_t>(step.outputs[0])].form)});
  }

  const apr_plan& plan_;
  LowerOptions options_;
  Dataflow flow_;
  Patterns patterns_;
  Program program_;
  std::vector<bool> done_;
  std::vector<int32_t> buffer_of_;  // by value
  std::vector<int32_t> crossing_;
  std::map<std::pair<int32_t, Form>, int32_t> copies_;
  std::map<int32_t, uint32_t> pending_swiglu_;   // value -> its op
  std::map<uint32_t, int32_t> attention_index_;  // op -> KV cache
  int32_t n_attentions_ = 0;
};

}  // namespace

Form gemm_input(const apr_codec& codec, const LowerOptions& options) {
  // A weight of at most 16 bits fits one f16 term (scaled by a power of two), and then 11 bits of the activation are worth
  // keeping; a 32-bit weight needs two terms, as its activation does.
  if (uint64_t{codec.block_bytes} * 8 > uint64_t{codec.block} * 16) return Form::Bf16x2;
  return options.precise ? Form::F16x2 : Form::F16;
}

Program lower(const apr_plan& plan, uint32_t m, bool head, const LowerOptions& options) {
  return Lowering(plan, m, head, options).run();
}

std::vector<int32_t> crossing_values(const apr_plan& plan) {
  const Dataflow flow = analyse(plan);
  std::vector<int32_t> values;
  for (uint32_t v = 0; v < plan.n_values; ++v) {
    const bool in_body = flow.producer[v] >= 0 && !flow.is_head(flow.producer[v]);
    const bool read_by_head = std::any_of(flow.readers[v].begin(), flow.readers[v].end(),
                                          [&](uint32_t r) { return flow.is_head(static_cast<int32_t>(r)); });
    if (in_body && read_by_head) values.push_back(static_cast<int32_t>(v));
  }
  return values;
}

std::vector<CacheShape> cache_shapes(const apr_plan& plan) {
  std::vector<CacheShape> shapes;
  for (uint32_t i = 0; i < plan.n_ops; ++i)
    if (plan.ops[i]->kind == APR_OP_ATTENTION)
      shapes.push_back({plan.ops[i]->n_kv_heads, plan.ops[i]->head_dim});
  return shapes;
}

}  // namespace apr::cuda
