#include <fmt/format.h>

#include "plugins/backend-cuda/failure.h"
#include "plugins/backend-cuda/lower.h"

namespace apr::cuda {

namespace {

class Checker {
 public:
  explicit Checker(const apr_plan& plan) : plan_(plan) {}

  void check(const apr_op& op) const {
    if (op.out < 0 || static_cast<uint32_t>(op.out) >= plan_.n_values)
      fail(op, "writes a value that does not exist");
    switch (op.kind) {
      case APR_OP_EMBED:
        weight(op, 0, -1, width(op.out));
        return;
      case APR_OP_RMS_NORM:
        same_width(op, 0);
        heads(op, op.out, op.n_heads);
        vector(op, op.vector[0], op.head_dim);
        return;
      case APR_OP_LINEAR:
        weight(op, 0, width(op.out), width(value(op, 0)));
        if (op.vector[0] >= 0) vector(op, op.vector[0], width(op.out));
        return;
      case APR_OP_ROPE:
        same_width(op, 0);
        heads(op, op.out, op.n_heads);
        vector(op, op.vector[0], op.rope_dims / 2);
        if (op.rope_dims == 0 || op.rope_dims % 2 != 0 || op.rope_dims > op.head_dim ||
            op.rope == APR_ROPE_NONE)
          fail(op, fmt::format("rotates {} of {} columns of a head", op.rope_dims, op.head_dim));
        return;
      case APR_OP_ATTENTION:
        heads(op, value(op, 0), op.n_heads);
        heads(op, value(op, 1), op.n_kv_heads);
        heads(op, value(op, 2), op.n_kv_heads);
        heads(op, op.out, op.n_heads);
        if (op.n_kv_heads == 0 || op.n_heads % op.n_kv_heads != 0)
          fail(op, fmt::format("{} heads do not divide among {} KV heads", op.n_heads, op.n_kv_heads));
        return;
      case APR_OP_ADD:
      case APR_OP_SWIGLU:
        same_width(op, 0);
        same_width(op, 1);
        return;
    }
    throw failure(APR_UNSUPPORTED, "stage {}: operation kind {} is newer than this backend", op.stage,
                  static_cast<int>(op.kind));
  }

 private:
  [[noreturn]] void fail(const apr_op& op, const std::string& what) const {
    throw failure(APR_INVALID, "plan of {}: stage {} {}", plan_.model_name, op.stage, what);
  }
  int64_t width(int32_t value) const { return plan_.values[value]->width; }
  int32_t value(const apr_op& op, int slot) const {
    if (op.in[slot] < 0 || static_cast<uint32_t>(op.in[slot]) >= plan_.n_values)
      fail(op, fmt::format("lacks input {}", slot));
    return op.in[slot];
  }
  void same_width(const apr_op& op, int slot) const {
    if (width(value(op, slot)) != width(op.out))
      fail(op, fmt::format("has an input of width {} and a result of width {}", width(op.in[slot]),
                           width(op.out)));
  }
  void heads(const apr_op& op, int32_t v, uint32_t n) const {
    if (int64_t{n} * op.head_dim != width(v) || op.head_dim == 0)
      fail(op, fmt::format("has {} heads of {} columns in a value of width {}", n, op.head_dim, width(v)));
  }
  void vector(const apr_op& op, int32_t index, int64_t n) const {
    if (index < 0 || static_cast<uint32_t>(index) >= plan_.n_vectors) fail(op, "lacks a vector");
    if (static_cast<int64_t>(plan_.vectors[index]->n) != n)
      fail(op, fmt::format("has vector {} of {} elements instead of {}", plan_.vectors[index]->name,
                           plan_.vectors[index]->n, n));
  }
  // n < 0: any number of rows.
  void weight(const apr_op& op, int slot, int64_t n, int64_t k) const {
    if (op.weight[slot] < 0 || static_cast<uint32_t>(op.weight[slot]) >= plan_.n_weights)
      fail(op, "lacks a weight");
    const apr_weight& w = *plan_.weights[op.weight[slot]];
    if ((n >= 0 && static_cast<int64_t>(w.n) != n) || static_cast<int64_t>(w.k) != k)
      fail(op, fmt::format("has weight {} of [{}, {}], which does not fit", w.name, w.n, w.k));
    if (w.format->codec == nullptr)
      throw failure(APR_UNSUPPORTED, "tensor {}: format {} has no device code, so it runs on the CPU only",
                    w.name, w.format->name);
  }

  const apr_plan& plan_;
};

// Walks back from attention through one rotation and one norm per head.
AttentionPattern match_attention(const Dataflow& flow, uint32_t attention) {
  const apr_op& op = flow.op(static_cast<int32_t>(attention));
  AttentionPattern p{true, op.in[0], op.in[1], -1, -1, -1, -1};
  const auto step_back = [&](int32_t& value, apr_op_kind kind, uint32_t reader) -> int32_t {
    const int32_t made = flow.producer[static_cast<size_t>(value)];
    if (made < 0 || flow.op(made).kind != kind || !flow.only_read_by(value, reader)) return -1;
    if (flow.is_head(made) != flow.is_head(static_cast<int32_t>(attention))) return -1;
    value = flow.op(made).in[0];
    return made;
  };
  p.q_rope = step_back(p.q, APR_OP_ROPE, attention);
  p.k_rope = step_back(p.k, APR_OP_ROPE, attention);
  p.q_norm = step_back(p.q, APR_OP_RMS_NORM, p.q_rope >= 0 ? static_cast<uint32_t>(p.q_rope) : attention);
  p.k_norm = step_back(p.k, APR_OP_RMS_NORM, p.k_rope >= 0 ? static_cast<uint32_t>(p.k_rope) : attention);
  // One kernel rotates and norms both alike.
  if ((p.q_rope < 0) != (p.k_rope < 0) || (p.q_norm < 0) != (p.k_norm < 0)) return {};
  if (p.q_rope >= 0) {
    const apr_op &q = flow.op(p.q_rope), &k = flow.op(p.k_rope);
    if (q.rope != k.rope || q.rope_dims != k.rope_dims || q.vector[0] != k.vector[0] || q.scale != k.scale ||
        q.head_dim != op.head_dim || k.head_dim != op.head_dim)
      return {};
  }
  if (p.q_norm >= 0) {
    const apr_op &q = flow.op(p.q_norm), &k = flow.op(p.k_norm);
    if (q.eps != k.eps || q.head_dim != op.head_dim || k.head_dim != op.head_dim) return {};
  }
  return p;
}

}  // namespace

Dataflow analyse(const apr_plan& plan) {
  const Checker checker(plan);
  Dataflow flow{&plan, std::vector<int32_t>(plan.n_values, -1),
                std::vector<std::vector<uint32_t>>(plan.n_values)};
  for (uint32_t i = 0; i < plan.n_ops; ++i) {
    const apr_op& op = *plan.ops[i];
    checker.check(op);
    for (const int32_t in : op.in) {
      if (in < 0) continue;
      if (flow.producer[static_cast<size_t>(in)] < 0)
        throw failure(APR_INVALID, "plan of {}: stage {} reads a value before it is computed",
                      plan.model_name, op.stage);
      flow.readers[static_cast<size_t>(in)].push_back(i);
    }
    if (flow.producer[static_cast<size_t>(op.out)] >= 0)
      throw failure(APR_INVALID, "plan of {}: stage {} writes a value that stage {} has written",
                    plan.model_name, op.stage, flow.op(flow.producer[static_cast<size_t>(op.out)]).stage);
    flow.producer[static_cast<size_t>(op.out)] = static_cast<int32_t>(i);
    if (i >= plan.head_op && (op.kind == APR_OP_ATTENTION || op.kind == APR_OP_EMBED))
      throw failure(APR_INVALID, "plan of {}: stage {} needs all tokens and stands in the head",
                    plan.model_name, op.stage);
  }
  if (plan.logits < 0 || static_cast<uint32_t>(plan.logits) >= plan.n_values ||
      flow.producer[static_cast<size_t>(plan.logits)] < 0)
    throw failure(APR_INVALID, "plan of {}: the logits are never computed", plan.model_name);
  if (!flow.is_head(flow.producer[static_cast<size_t>(plan.logits)]))
    throw failure(APR_INVALID, "plan of {}: the logits are computed before head_op", plan.model_name);
  if (plan.values[plan.logits]->width != plan.n_vocab)
    throw failure(APR_INVALID, "plan of {}: logits of width {} for a vocabulary of {}", plan.model_name,
                  plan.values[plan.logits]->width, plan.n_vocab);
  return flow;
}

View linear_view(const apr_weight& weight, uint32_t m, const LowerOptions& options) {
  if (options.rules != nullptr)
    if (const std::optional<View> view = options.rules->view(weight, options.served)) return *view;
  // Tensor cores eat 16-bit floats, so a GEMM decodes every codec to floats.
  return weight.format->codec->kind == APR_CODEC_INTEGER && m != 0 && !options.precise ? View::Int
                                                                                       : View::Float;
}

Patterns find_patterns(const Dataflow& flow, uint32_t m, const LowerOptions& options) {
  const apr_plan& plan = *flow.plan;
  Patterns p{std::vector<int32_t>(plan.n_ops, -1), std::vector<int32_t>(plan.n_ops, -1),
             std::vector<bool>(plan.n_ops, false), std::vector<AttentionPattern>(plan.n_ops),
             std::vector<bool>(plan.n_ops, false)};
  if (!options.fuse) return p;
  const auto linear_making = [&](int32_t value, uint32_t reader) -> int32_t {
    const int32_t made = flow.producer[static_cast<size_t>(value)];
    const bool fits = flow.op(made).kind == APR_OP_LINEAR && flow.only_read_by(value, reader) &&
                      flow.is_head(made) == flow.is_head(static_cast<int32_t>(reader));
    return fits ? made : -1;
  };
  for (uint32_t i = 0; i < plan.n_ops; ++i) {
    const apr_op& op = *plan.ops[i];
    switch (op.kind) {
      case APR_OP_ADD:
        for (const int side : {1, 0}) {
          const int32_t linear = linear_making(op.in[side], i);
          const int32_t other = op.in[1 - side];
          // The kernel of the linear adds, so the other side must exist before it.
          if (linear < 0 || flow.producer[static_cast<size_t>(other)] > linear) continue;
          p.residual_add[static_cast<size_t>(linear)] = static_cast<int32_t>(i);
          p.absorbed[i] = true;
          break;
        }
        break;
      case APR_OP_SWIGLU: {
        const int32_t gate = linear_making(op.in[0], i), up = linear_making(op.in[1], i);
        if (gate < 0 || up < 0 || gate == up || flow.op(gate).in[0] != flow.op(up).in[0]) break;
        const apr_weight &w_gate = *plan.weights[flow.op(gate).weight[0]],
                         &w_up = *plan.weights[flow.op(up).weight[0]];
        if (w_gate.format->codec->kind != w_up.format->codec->kind ||
            linear_view(w_gate, m, options) != linear_view(w_up, m, options))
          break;
        p.swiglu[static_cast<size_t>(gate)] = p.swiglu[static_cast<size_t>(up)] = static_cast<int32_t>(i);
        p.absorbed[i] = true;
        break;
      }
      case APR_OP_RMS_NORM: {
        bool linears = op.n_heads == 1 && op.out != plan.logits;
        for (const uint32_t reader : flow.readers[static_cast<size_t>(op.out)])
          linears = linears && flow.op(static_cast<int32_t>(reader)).kind == APR_OP_LINEAR &&
                    flow.is_head(static_cast<int32_t>(reader)) == flow.is_head(static_cast<int32_t>(i));
        p.into_linears[i] = linears;
        p.absorbed[i] = linears;
        break;
      }
      case APR_OP_ATTENTION: {
        p.attention[i] = match_attention(flow, i);
        for (const int32_t part :
             {p.attention[i].q_norm, p.attention[i].k_norm, p.attention[i].q_rope, p.attention[i].k_rope})
          if (p.attention[i].found && part >= 0) p.absorbed[static_cast<size_t>(part)] = true;
        break;
      }
      case APR_OP_EMBED:
      case APR_OP_LINEAR:
      case APR_OP_ROPE:
        break;
    }
  }
  return p;
}

}  // namespace apr::cuda
