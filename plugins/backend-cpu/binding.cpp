#include "binding.h"

#include <numeric>

#include "failure.h"
#include "topology.h"

namespace apr::cpu {
namespace {

constexpr uint64_t kColumns = 512;  // 32 rows of that many int8 weights, unpacked and packed, fit a first-level cache

template <class Fn>
struct Choice {
  Fn fn = nullptr;
  apr_isa isa = APR_ISA_PORTABLE;
  const char* origin = "";
};

template <class Fn>
Choice<Fn> choose(const apr_quant_format& format, apr_isa most, Fn apr_cpu_kernels::*member, uint64_t& choices) {
  ++choices;
  Choice<Fn> best;
  for (uint32_t i = 0; i < format.n_cpu; ++i) {
    const apr_cpu_kernels set = read_struct(format.cpu[i], "a format's table of kernels");
    if (set.isa > most || !(set.*member) || (best.fn && set.isa < best.isa)) continue;
    best = {set.*member, set.isa, set.origin ? set.origin : ""};
  }
  return best;
}

}  // namespace

BoundWeight bind_weight(const apr_weight* weight, apr_isa isa, bool precise, uint64_t& choices) {
  BoundWeight b{};
  b.weight = read_struct(weight, "a weight");
  const apr_weight& w = b.weight;
  const char* name = w.name ? w.name : "a weight without a name";
  if (!w.format) fail(APR_INVALID, "cpu: %s has no format", name);
  const apr_quant_format f = read_struct(w.format, "a weight's format");
  if (f.block_elements == 0 || f.block_bytes == 0)
    fail(APR_INVALID, "cpu: %s: format %s has blocks of %u columns and %u bytes", name, f.name, f.block_elements, f.block_bytes);
  if (w.n == 0 || w.k == 0 || w.k % f.block_elements != 0)
    fail(APR_INVALID, "cpu: %s is [%llu, %llu], but %s needs a multiple of %u columns", name,
         static_cast<unsigned long long>(w.n), static_cast<unsigned long long>(w.k), f.name, f.block_elements);
  b.row_bytes = w.k / f.block_elements * f.block_bytes;
  if (w.bytes != w.n * b.row_bytes)
    fail(APR_INVALID, "cpu: %s has %llu bytes, but [%llu, %llu] in %s takes %llu", name,
         static_cast<unsigned long long>(w.bytes), static_cast<unsigned long long>(w.n),
         static_cast<unsigned long long>(w.k), f.name, static_cast<unsigned long long>(w.n * b.row_bytes));
  if (!w.data) fail(APR_INVALID, "cpu: %s has no data", name);
  b.data = static_cast<const uint8_t*>(w.data);

  const auto unpack_float = choose(f, isa, &apr_cpu_kernels::unpack_float, choices);
  if (!unpack_float.fn) fail(APR_UNSUPPORTED, "cpu: %s: format %s has no unpack_float for isa=%s or below", name, f.name, isa_name(isa));
  b.unpack_float = unpack_float.fn;

  if (!precise && f.int_group != 0) {
    if (f.int_group != 16 && f.int_group % APR_ACT_BLOCK != 0)
      fail(APR_INVALID, "cpu: %s: format %s has int_group %u; it must be 16 or a multiple of %u", name, f.name, f.int_group, APR_ACT_BLOCK);
    if (f.block_elements % f.int_group != 0)
      fail(APR_INVALID, "cpu: %s: format %s has int_group %u, which does not divide its block of %u columns", name, f.name, f.int_group,
           f.block_elements);
    const auto gemv = choose(f, isa, &apr_cpu_kernels::gemv_int, choices);
    const auto unpack = choose(f, isa, &apr_cpu_kernels::unpack_int, choices);
    if (!gemv.fn || !unpack.fn)
      fail(APR_UNSUPPORTED, "cpu: %s: format %s has no %s for isa=%s or below", name, f.name, gemv.fn ? "unpack_int" : "gemv_int",
           isa_name(isa));
    b.integer = true;
    b.group = f.int_group;
    b.gemv = gemv.fn, b.gemv_isa = gemv.isa, b.gemv_origin = gemv.origin;
    b.unpack_int = unpack.fn, b.unpack_isa = unpack.isa, b.unpack_origin = unpack.origin;
  } else {
    const auto gemv = choose(f, isa, &apr_cpu_kernels::gemv_float, choices);
    if (!gemv.fn) fail(APR_UNSUPPORTED, "cpu: %s: format %s has no gemv_float for isa=%s or below", name, f.name, isa_name(isa));
    b.gemv = gemv.fn, b.gemv_isa = gemv.isa, b.gemv_origin = gemv.origin;
    b.unpack_isa = unpack_float.isa, b.unpack_origin = unpack_float.origin;
  }
  const uint64_t unit = std::lcm<uint64_t>(f.block_elements, APR_ACT_BLOCK);
  b.k_step = unit >= kColumns ? unit : kColumns / unit * unit;
  return b;
}

}  // namespace apr::cpu
