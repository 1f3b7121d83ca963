// What a session says about itself.
#include <algorithm>

#include "failure.h"
#include "session.h"
#include "topology.h"
#include "weights.h"

using namespace apr::cpu;

namespace {

std::string origin(apr_isa isa, const char* how) {
  return std::string(isa_name(isa)) + (*how ? std::string(" (") + how + ")" : "");
}

// Weight bytes that one token of a decode step reads for an operation.
uint64_t token_bytes(const BoundWeight& w, apr_op_kind kind) {
  return kind == APR_OP_EMBED ? w.row_bytes : w.weight.bytes;
}

const char* row_kernel(apr_op_kind kind, apr_rope_kind rope) {
  switch (kind) {
    case APR_OP_EMBED: return "unpack_float";
    case APR_OP_RMS_NORM: return "rms_norm";
    case APR_OP_LINEAR: return "gemv + gemm";
    case APR_OP_ROPE: return rope == APR_ROPE_ADJACENT ? "rope_adjacent" : "rope_halves";
    case APR_OP_ATTENTION: return "attend";
    case APR_OP_ADD: return "add";
    case APR_OP_SWIGLU: return "swiglu";
  }
  return "";
}

}  // namespace

void apr_session::describe() {
  const std::string isa = isa_name(device_.isa);
  for (uint32_t i = 0; i < program_.ops.size(); ++i) {
    const apr_op& op = program_.ops[i];
    const Phase& phase = program_.phases[static_cast<size_t>(program_.op_phase[i])];
    Choice c{op.stage, "", "", row_kernel(op.kind, op.rope), "isa=" + isa, "the device's instruction set", 0, i};
    if (op.kind == APR_OP_EMBED || op.kind == APR_OP_LINEAR) {
      const BoundWeight& w = *program_.weights[static_cast<size_t>(op.weight[0])];
      c.weight = w.weight.name ? w.weight.name : "";
      c.format = w.weight.format->name;
      c.bytes = token_bytes(w, op.kind);
      info_.token_bytes += c.bytes;
      if (op.kind == APR_OP_LINEAR) {
        c.kernel = w.integer ? "gemv_int + gemm_int" : "gemv_float + gemm_float";
        c.config = "gemv=" + origin(w.gemv_isa, w.gemv_origin) + " unpack=" + origin(w.unpack_isa, w.unpack_origin) +
                   " gemm=" + isa + " gemv_tokens=" + std::to_string(APR_CPU_GEMV_MAX_M) +
                   " panel=" + std::to_string(kPanelRows) + "x" + std::to_string(std::min<uint64_t>(w.k_step, w.weight.k));
        c.reason = w.integer                          ? "the format has integer kernels: int8 activations"
                   : w.weight.format->int_group != 0 ? "precise: float activations"
                                                      : "the format is a float codec: float activations";
      } else {
        c.config = "unpack=" + origin(w.unpack_isa, w.unpack_origin);
        c.reason = "the format's highest instruction set within isa=" + isa;
      }
    }
    if (op.kind == APR_OP_ATTENTION) {
      const KvCache& kv = *phase.attention.kv;
      c.config += kv.element_bytes == 2 ? " kv=f16" : " kv=f32";
      c.config += " chunk=" + std::to_string(kChunkKeys) + " group=" + std::to_string(phase.attention.shape->group);
      info_.kv_token_bytes += uint64_t{kv.heads} * (kv.head_dim + kv.padded) * kv.element_bytes;
    }
    if (op.kind == APR_OP_SWIGLU && phase.kind == PhaseKind::Linear) c.reason = "in the tasks of the products that it joins";
    choices_.push_back(std::move(c));
  }
  info_.weight_bytes = weight_bytes(program_);
  info_.kv_bytes = program_.kv.bytes();
  info_.scratch_bytes = program_.activations.bytes() + program_.ropes_memory.bytes() + partials_.bytes();
  for (const LinearWorkspace& w : linear_) info_.scratch_bytes += w.bytes();
  for (const AttentionWorkspace& w : attention_) info_.scratch_bytes += w.bytes();
  info_.n_kernels = static_cast<uint32_t>(choices_.size());
}

void apr_session::info(apr_session_info& out) const {
  const uint32_t size = out.struct_size;
  out = info_;
  out.struct_size = size;
  out.dispatches_after_load = program_.choices - choices_at_load_;
}

void apr_session::kernel(uint32_t index, apr_kernel_info& out) const {
  if (index >= choices_.size()) fail(APR_INVALID, "cpu: kernel %u of %zu", index, choices_.size());
  const Choice& c = choices_[index];
  const Phase& phase = program_.phases[static_cast<size_t>(program_.op_phase[c.op])];
  // A phase is timed as a whole; its operations share that evenly, products by the weights that they read.
  double share = 1.0 / static_cast<double>(phase.ops.size());
  if (phase.kind == PhaseKind::Linear) {
    uint64_t bytes = 0;
    for (const uint32_t op : phase.ops) bytes += choices_[op].bytes;
    share = static_cast<double>(c.bytes) / static_cast<double>(bytes);
  }
  out.stage = c.stage.c_str();
  out.weight = c.weight.c_str();
  out.format = c.format.c_str();
  out.layout = "row_major";
  out.kernel = c.kernel.c_str();
  out.config = c.config.c_str();
  out.reason = c.reason.c_str();
  out.bytes = c.bytes;
  out.microseconds = phase.microseconds * share;
}
