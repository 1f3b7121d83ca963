#include "binding.h"

#include <numeric>

#include "device.h"
#include "failure.h"
#include "topology.h"

namespace apr::cpu {
namespace {

// The function of the highest instruction set up to `most` that has one.
template <class Fn>
FormatKernel<Fn> choose(const apr_weight& w, const char* what, apr_isa most, Fn apr_cpu_kernels::*member,
                        uint64_t& choices) {
  ++choices;
  const apr_quant_format f = read_struct(w.format, "a weight's format");
  FormatKernel<Fn> best;
  for (uint32_t i = 0; i < f.n_cpu; ++i) {
    const apr_cpu_kernels set = read_struct(f.cpu[i], "a format's table of kernels");
    if (set.isa > most || !(set.*member) || (best.fn && set.isa < best.isa)) continue;
    best = {set.*member, set.isa, set.origin ? set.origin : ""};
  }
  if (!best.fn)
    fail(APR_UNSUPPORTED, "%s: format %s has no %s for isa=%s or below", w.name ? w.name : "a weight", f.name,
         what, isa_name(most));
  return best;
}

// What the set of a chosen function has besides; null when it lacks that.
template <class Chosen, class Fn>
FormatKernel<Fn> of_same_set(const apr_weight& w, const FormatKernel<Chosen>& chosen,
                             Fn apr_cpu_kernels::*member) {
  const apr_quant_format f = read_struct(w.format, "a weight's format");
  for (uint32_t i = 0; i < f.n_cpu; ++i)
    if (const apr_cpu_kernels set = read_struct(f.cpu[i], "a format's table of kernels");
        set.isa == chosen.isa)
      return {set.*member, set.isa, chosen.origin};
  return {};
}

}  // namespace

BoundGemv bind_gemv(const apr_weight& w, KernelChoice choice, uint64_t& choices) {
  BoundGemv b;
  b.kernel = choice.eats == Eats::Int8
                 ? choose(w, "gemv_int", choice.isa, &apr_cpu_kernels::gemv_int, choices)
                 : choose(w, "gemv_float", choice.isa, &apr_cpu_kernels::gemv_float, choices);
  b.choice = std::move(choice);
  return b;
}

BoundGemm bind_gemm(const apr_weight& w, KernelChoice choice, uint64_t& choices) {
  BoundGemm b;
  if (choice.eats == Eats::Int8) {
    b.unpack_int = choose(w, "unpack_int", choice.isa, &apr_cpu_kernels::unpack_int, choices);
    b.unpack_rows = of_same_set(w, b.unpack_int, &apr_cpu_kernels::unpack_rows);
  } else {
    b.unpack_float = choose(w, "unpack_float", choice.isa, &apr_cpu_kernels::unpack_float, choices);
  }
  b.kernels = &kernels_of(choice.isa);
  const uint64_t unit = std::lcm<uint64_t>(w.format->block_elements, APR_ACT_BLOCK);
  b.k_step = unit >= choice.columns ? unit : choice.columns / unit * unit;
  b.choice = std::move(choice);
  return b;
}

BoundWeight bind_weight(const apr_weight* weight) {
  BoundWeight b{};
  b.weight = read_struct(weight, "a weight");
  const apr_weight& w = b.weight;
  const char* name = w.name ? w.name : "a weight without a name";
  if (!w.format) fail(APR_INVALID, "%s has no format", name);
  const apr_quant_format f = read_struct(w.format, "a weight's format");
  if (f.block_elements == 0 || f.block_bytes == 0)
    fail(APR_INVALID, "%s: format %s has blocks of %u columns and %u bytes", name, f.name, f.block_elements,
         f.block_bytes);
  if (w.n == 0 || w.k == 0 || w.k % f.block_elements != 0)
    fail(APR_INVALID, "%s is [%llu, %llu], but %s needs a multiple of %u columns", name,
         static_cast<unsigned long long>(w.n), static_cast<unsigned long long>(w.k), f.name,
         f.block_elements);
  b.row_bytes = w.k / f.block_elements * f.block_bytes;
  if (w.bytes != w.n * b.row_bytes)
    fail(APR_INVALID, "%s has %llu bytes, but [%llu, %llu] in %s takes %llu", name,
         static_cast<unsigned long long>(w.bytes), static_cast<unsigned long long>(w.n),
         static_cast<unsigned long long>(w.k), f.name, static_cast<unsigned long long>(w.n * b.row_bytes));
  if (!w.data) fail(APR_INVALID, "%s has no data", name);
  b.data = static_cast<const uint8_t*>(w.data);
  b.group = f.int_group;
  if (f.int_group != 0) {
    if (f.int_group != 16 && f.int_group % APR_ACT_BLOCK != 0)
      fail(APR_INVALID, "%s: format %s has int_group %u; it must be 16 or a multiple of %u", name, f.name,
           f.int_group, APR_ACT_BLOCK);
    if (f.block_elements % f.int_group != 0)
      fail(APR_INVALID, "%s: format %s has int_group %u, which does not divide its block of %u columns", name,
           f.name, f.int_group, f.block_elements);
  }
  return b;
}

void bind_linear(BoundWeight& b, const Chooser& chooser, uint64_t& choices) {
  if (b.gemv.kernel.fn) return;
  b.gemv = bind_gemv(b.weight, chooser.gemv(b.weight), choices);
  b.gemm = bind_gemm(b.weight, chooser.gemm(b.weight), choices);
}

void bind_embed(BoundWeight& b, const Chooser& chooser, uint64_t& choices) {
  if (b.embed.unpack_float.fn) return;
  b.embed.choice = chooser.embed(b.weight);
  b.embed.unpack_float =
      choose(b.weight, "unpack_float", b.embed.choice.isa, &apr_cpu_kernels::unpack_float, choices);
}

}  // namespace apr::cpu
