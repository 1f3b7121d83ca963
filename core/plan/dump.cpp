#include <iterator>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/plan/plan.h"

namespace apr {

namespace {

std::string_view name(apr_op_kind kind) {
  switch (kind) {
    case APR_OP_EMBED:
      return "embed";
    case APR_OP_RMS_NORM:
      return "rms_norm";
    case APR_OP_LINEAR:
      return "linear";
    case APR_OP_ROPE:
      return "rope";
    case APR_OP_ATTENTION:
      return "attention";
    case APR_OP_ADD:
      return "add";
    case APR_OP_SWIGLU:
      return "swiglu";
  }
  throw Error("internal error: {} is no operation", static_cast<int>(kind));
}

std::string_view name(apr_rope_kind kind) {
  switch (kind) {
    case APR_ROPE_NONE:
      return "none";
    case APR_ROPE_ADJACENT:
      return "adjacent";
    case APR_ROPE_HALVES:
      return "halves";
  }
  throw Error("internal error: {} is no kind of rope", static_cast<int>(kind));
}

// What is particular to the kind of operation.
std::string attributes(const apr_op& op) {
  switch (op.kind) {
    case APR_OP_EMBED:
    case APR_OP_LINEAR:
    case APR_OP_ADD:
    case APR_OP_SWIGLU:
      return "";
    case APR_OP_RMS_NORM:
      return fmt::format("groups={}x{} eps={:g}", op.n_heads, op.head_dim, op.eps);
    case APR_OP_ROPE:
      return fmt::format("heads={}x{} dims={} pairs={} scale={:g}", op.n_heads, op.head_dim, op.rope_dims,
                         name(op.rope), op.scale);
    case APR_OP_ATTENTION:
      return fmt::format("heads={}x{} kv_heads={} scale={:g}{}", op.n_heads, op.head_dim, op.n_kv_heads,
                         op.scale, op.window ? fmt::format(" window={}", op.window) : "");
  }
  throw Error("internal error: {} is no operation", static_cast<int>(op.kind));
}

}  // namespace

std::string Plan::dump() const {
  std::string text;
  auto out = std::back_inserter(text);
  fmt::format_to(out, "plan of {} ({}): {} layers, vocabulary {}, context {}, {} operations, {} weights\n",
                 printable(model_name_), printable(arch_), c_.n_layers, c_.n_vocab, c_.n_ctx_train, c_.n_ops,
                 c_.n_weights);
  for (uint32_t i = 0; i < c_.n_ops; ++i) {
    const apr_op& op = *c_.ops[i];
    if (i == c_.head_op) fmt::format_to(out, "-- for wanted tokens only --\n");
    std::string inputs;
    for (int32_t in : op.in) {
      if (in >= 0) inputs += fmt::format("{}v{}", inputs.empty() ? "" : ",", in);
    }
    fmt::format_to(out, "{:4} {:<22} {:<9} {:<16} v{:<4} [M,{}]", i, op.stage, name(op.kind), inputs, op.out,
                   c_.values[op.out]->width);
    if (op.weight[0] >= 0) {
      const apr_weight& weight = *c_.weights[op.weight[0]];
      fmt::format_to(out, "  {} [{},{}] {} {}", printable(weight.name), weight.n, weight.k,
                     weight.format->name, human_bytes(weight.bytes));
    }
    if (op.vector[0] >= 0)
      fmt::format_to(out, "  + {} [{}]", printable(c_.vectors[op.vector[0]]->name),
                     c_.vectors[op.vector[0]]->n);
    if (const std::string more = attributes(op); !more.empty()) fmt::format_to(out, "  {}", more);
    text += '\n';
  }
  for (const std::string& note : notes_) fmt::format_to(out, "note: {}\n", note);
  return text;
}

}  // namespace apr
