// What a session says about itself.
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>

#include "failure.h"
#include "session.h"
#include "topology.h"
#include "weights.h"

using namespace apr::cpu;

namespace {

std::string origin(apr_isa isa, const char* how) {
  return std::string(isa_name(isa)) + (*how ? std::string(" (") + how + ")" : "");
}

struct OpNames {
  const char *op, *kernel;
};

OpNames names_of(apr_op_kind kind, apr_rope_kind rope) {
  switch (kind) {
    case APR_OP_EMBED:
      return {"embed", "embed"};
    case APR_OP_RMS_NORM:
      return {"rms_norm", "rms_norm"};
    case APR_OP_LINEAR:
      return {"linear", ""};
    case APR_OP_ROPE:
      return {"rope", rope == APR_ROPE_ADJACENT ? "rope_adjacent" : "rope_halves"};
    case APR_OP_ATTENTION:
      return {"attention", "attend"};
    case APR_OP_ADD:
      return {"add", "add"};
    case APR_OP_SWIGLU:
      return {"swiglu", "swiglu"};
  }
  return {"", ""};
}

}  // namespace

void apr_session::describe(uint32_t n_batch) {
  const std::string isa = isa_name(device_.isa);
  for (uint32_t i = 0; i < program_.ops.size(); ++i) {
    const apr_op& op = program_.ops[i];
    const Phase& phase = program_.phases[static_cast<size_t>(program_.op_phase[i])];
    const OpNames names = names_of(op.kind, op.rope);
    Choice c{};
    c.stage = op.stage, c.kernel = names.kernel, c.op_name = names.op, c.config = "isa=" + isa,
    c.reason = "the device's instruction set";
    c.k = program_.values[static_cast<size_t>(op.in[0] >= 0 ? op.in[0] : op.out)]->width;
    c.op = i, c.least = 1, c.most = n_batch;
    const auto chosen = [&](const KernelChoice& choice) {
      c.kernel = choice.name, c.reason = choice.reason, c.rule = choice.rule, c.rejected = choice.rejected;
      c.config = std::string("isa=") + isa_name(choice.isa);
    };
    const auto spec = [&] {
      c.spec = c.op_name + " m=" + std::to_string(c.least) + ".." + std::to_string(c.most) +
               " k=" + std::to_string(c.k) +
               (c.format.empty() ? "" : " " + c.format + ":" + std::to_string(c.n));
    };
    if (op.kind == APR_OP_EMBED || op.kind == APR_OP_LINEAR) {
      const BoundWeight& w = *program_.weights[static_cast<size_t>(op.weight[0])];
      c.weight = w.weight.name ? w.weight.name : "";
      c.format = w.weight.format->name;
      c.n = w.weight.n, c.k = w.weight.k;
      c.bytes = op.kind == APR_OP_EMBED ? w.row_bytes : w.weight.bytes;
      info_.token_bytes += c.bytes;
      if (op.kind == APR_OP_LINEAR) {
        c.most = std::min<uint32_t>(n_batch, APR_CPU_GEMV_MAX_M);
        chosen(w.gemv.choice);
        c.config += " task_kib=" + std::to_string(w.gemv.choice.task_bytes >> 10) +
                    (w.gemv.choice.copied ? " memory=copied" : " memory=mapped") + "; runs " +
                    origin(w.gemv.kernel.isa, w.gemv.kernel.origin);
        if (n_batch > APR_CPU_GEMV_MAX_M) {
          spec();
          choices_.push_back(c);
          c.least = APR_CPU_GEMV_MAX_M + 1, c.most = n_batch, c.many = true;
          chosen(w.gemm.choice);
          c.config += " columns=" + std::to_string(w.gemm.choice.columns) + "; unpacks " +
                      (w.gemm.integer() ? origin(w.gemm.unpack_int.isa, w.gemm.unpack_int.origin)
                                        : origin(w.gemm.unpack_float.isa, w.gemm.unpack_float.origin)) +
                      ", panels of " + std::to_string(kPanelRows) + "x" +
                      std::to_string(std::min<uint64_t>(w.gemm.k_step, w.weight.k));
        }
      } else {
        chosen(w.embed.choice);
        c.config += "; runs " + origin(w.embed.unpack_float.isa, w.embed.unpack_float.origin);
      }
    }
    if (op.kind == APR_OP_ATTENTION) {
      const KvCache& kv = *phase.attention.kv;
      c.config += kv.element_bytes == 2 ? " kv=f16" : " kv=f32";
      c.config +=
          " chunk=" + std::to_string(kChunkKeys) + " group=" + std::to_string(phase.attention.shape->group);
      info_.kv_token_bytes += uint64_t{kv.heads} * (kv.head_dim + kv.padded) * kv.element_bytes;
    }
    if (op.kind == APR_OP_SWIGLU && phase.kind == PhaseKind::Linear)
      c.reason = "in the tasks of the products that it joins";
    spec();
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
  if (index >= choices_.size()) fail(APR_INVALID, "kernel %u of %zu", index, choices_.size());
  const Choice& c = choices_[index];
  const Phase& phase = program_.phases[static_cast<size_t>(program_.op_phase[c.op])];
  // A phase is timed as a whole; its operations share that evenly, products by the weights that they read.
  double share = 1.0 / static_cast<double>(phase.ops.size());
  if (phase.kind == PhaseKind::Linear) {
    uint64_t bytes = 0;
    for (const LinearUnit& u : phase.units)
      bytes += u.part.weight->weight.bytes + (u.act ? u.up.weight->weight.bytes : 0);
    share = static_cast<double>(c.bytes) / static_cast<double>(bytes);
  }
  const bool one_kernel =
      c.op_name != "linear" && phase.kind != PhaseKind::Linear;  // the same for few tokens and many
  out.stage = c.stage.c_str();
  out.weight = c.weight.c_str();
  out.format = c.format.c_str();
  out.layout = "row_major";
  out.kernel = c.kernel.c_str();
  out.config = c.config.c_str();
  out.reason = c.reason.c_str();
  out.bytes = c.bytes;
  out.microseconds = phase.microseconds[c.many || (one_kernel && phase.microseconds[0] == 0)] * share;
  out.op = c.op_name.c_str();
  out.spec = c.spec.c_str();
  out.rule = c.rule.c_str();
  out.rejected = c.rejected.c_str();
  out.n = c.n;
  out.k = c.k;
  out.m_min = c.least;
  out.m_max = c.most;
  out.launch = index;
}

namespace {

// "libapr-quant-q4k.so+0x5170": plugins hide their symbols, so a place in a file is all that is known of a function.
std::string place(const void* function) {
  Dl_info info{};
  if (dladdr(function, &info) == 0 || !info.dli_fname) return "an unknown library";
  const std::string file = info.dli_fname;
  char offset[32];
  std::snprintf(
      offset, sizeof offset, "+0x%zx",
      static_cast<size_t>(static_cast<const char*>(function) - static_cast<const char*>(info.dli_fbase)));
  return file.substr(file.rfind('/') + 1) + offset;
}

template <class Fn>
std::string function_of(const char* what, const BoundWeight& w, const FormatKernel<Fn>& kernel) {
  return std::string(what) + " of " + w.weight.format->name + " for " + origin(kernel.isa, kernel.origin) +
         ", " + place(reinterpret_cast<const void*>(kernel.fn));
}

}  // namespace

void apr_session::code(uint32_t index, apr_kernel_code& out) {
  if (index >= choices_.size()) fail(APR_INVALID, "kernel %u of %zu", index, choices_.size());
  const Choice& c = choices_[index];
  const apr_op& op = program_.ops[c.op];
  std::string function = c.kernel + " of the backend for " + isa_name(device_.isa),
              isa = isa_name(device_.isa);
  if (op.weight[0] >= 0) {
    const BoundWeight& w = *program_.weights[static_cast<size_t>(op.weight[0])];
    if (op.kind == APR_OP_EMBED) {
      function = function_of("unpack_float", w, w.embed.unpack_float),
      isa = isa_name(w.embed.unpack_float.isa);
    } else if (!c.many) {
      function = function_of(w.gemv.integer() ? "gemv_int" : "gemv_float", w, w.gemv.kernel),
      isa = isa_name(w.gemv.kernel.isa);
    } else {
      function = w.gemm.unpack_rows.fn ? function_of("unpack_rows", w, w.gemm.unpack_rows)
                 : w.gemm.integer()    ? function_of("unpack_int", w, w.gemm.unpack_int)
                                       : function_of("unpack_float", w, w.gemm.unpack_float);
      const void* gemm = w.gemm.integer() ? reinterpret_cast<const void*>(w.gemm.kernels->gemm_int)
                                          : reinterpret_cast<const void*>(w.gemm.kernels->gemm_float);
      function += "; then " + c.kernel + " of the backend for " + w.gemm.kernels->name + ", " + place(gemm);
      isa = w.gemm.kernels->name;
    }
  }
  const auto& kept = code_[index] = {function, isa};
  out.function = kept.first.c_str();
  out.isa = kept.second.c_str();
  out.source = out.assembly = out.key = "";
  out.compiler = __VERSION__;
  out.registers = out.shared_bytes = out.spill_bytes = out.threads = out.ctas = -1;
}
