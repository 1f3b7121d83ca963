#include "choose.h"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "failure.h"
#include "topology.h"

namespace apr::cpu {

enum class Param { Isa, TaskKib, Memory, Columns };

struct ParamSpec {
  Param param;
  apr_kernel_param c;
};

struct Template {
  const char *name, *op, *view, *summary;
  Eats eats;
  uint32_t m_min, m_max;
  std::vector<Param> params;
};

namespace {

constexpr int64_t kIsas[] = {APR_ISA_PORTABLE, APR_ISA_AVX2, APR_ISA_AVX512};
constexpr const char* kIsaNames[] = {"portable", "avx2", "avx512"};
constexpr int64_t kTaskKib[] = {4, 8, 16, 32, 64, 128, 256};
constexpr int64_t kMemory[] = {0, 1};
constexpr const char* kMemoryNames[] = {"mapped", "copied"};
constexpr int64_t kColumns[] = {256, 512, 1024, 2048};

// task_kib: 16 KiB are a microsecond of one core's bandwidth, so that threads end together; larger tasks are
// claimed less often. columns: 32 rows of 512 int8 weights, unpacked and packed, fit a first-level cache.
const ParamSpec kParams[] = {
    {Param::Isa,
     {sizeof(apr_kernel_param), "isa", "highest instruction set that its functions may use", kIsas, kIsaNames,
      3, APR_ISA_AVX512}},
    {Param::TaskKib,
     {sizeof(apr_kernel_param), "task_kib", "KiB of weights that a thread takes at a time", kTaskKib, nullptr,
      7, 16}},
    {Param::Memory,
     {sizeof(apr_kernel_param), "memory",
      "where the weight lies: in the file's mapping, or copied to large pages at load", kMemory, kMemoryNames,
      2, 0}},
    {Param::Columns,
     {sizeof(apr_kernel_param), "columns", "columns of W that are unpacked at a time", kColumns, nullptr, 4,
      512}},
};

const std::vector<Template>& templates() {
  static const std::vector<Template> list = {
      {"gemv_int",
       "linear",
       "int",
       "GEMV with 8-bit activations: the format's own dot products over packed weights",
       Eats::Int8,
       1,
       APR_CPU_GEMV_MAX_M,
       {Param::Isa, Param::TaskKib, Param::Memory}},
      {"gemv_float",
       "linear",
       "float",
       "GEMV with float activations: weights become floats in registers",
       Eats::Floats,
       1,
       APR_CPU_GEMV_MAX_M,
       {Param::Isa, Param::TaskKib, Param::Memory}},
      {"gemm_int",
       "linear",
       "int",
       "GEMM with 8-bit activations: panels of 32 rows unpacked to int8",
       Eats::Int8,
       APR_CPU_GEMV_MAX_M + 1,
       0,
       {Param::Isa, Param::Columns}},
      {"gemm_float",
       "linear",
       "float",
       "GEMM with float activations: panels of 16 rows unpacked to floats",
       Eats::Floats,
       APR_CPU_GEMV_MAX_M + 1,
       0,
       {Param::Isa, Param::Columns}},
      {"embed", "embed", "float", "rows of the embedding as floats", Eats::Floats, 1, 0, {Param::Isa}},
  };
  return list;
}

const ParamSpec& spec_of(Param param) {
  return *std::find_if(std::begin(kParams), std::end(kParams),
                       [&](const ParamSpec& p) { return p.param == param; });
}

// Of all that kernels are made from: the build writes it.
constexpr const char* kHash =
#include "kernels_hash.inc"
    ;

int64_t given(const apr_kernel_rule* rule, Param param, int64_t otherwise) {
  for (uint32_t i = 0; rule && i < rule->n_values; ++i)
    if (std::strcmp(rule->values[i].name, spec_of(param).c.name) == 0) return rule->values[i].value;
  return otherwise;
}

const char* text(const char* t) { return t ? t : ""; }

}  // namespace

void list_templates(apr_kernel_template_fn fn, void* user) {
  static const char* const kLayouts[] = {"row_major"};
  for (const Template& t : templates()) {
    std::vector<const apr_kernel_param*> params;
    for (const Param p : t.params) params.push_back(&spec_of(p).c);
    const apr_kernel_template k = {
        sizeof k,  t.name,     t.op,          t.view,
        t.summary, "portable", "built in",    kHash,
        t.m_min,   t.m_max,    kLayouts,      1,
        nullptr,   0,          params.data(), static_cast<uint32_t>(params.size())};
    fn(user, &k);
  }
}

Chooser::Bound Chooser::bind(const apr_kernel_rule& rule) const {
  Bound bound{&rule, nullptr};
  if (rule.struct_size < sizeof rule)
    fail(APR_INVALID, "a rule's struct_size is %u instead of %zu", rule.struct_size, sizeof rule);
  if (rule.arch && !std::any_of(std::begin(kIsaNames), std::end(kIsaNames),
                                [&](const char* n) { return std::strcmp(n, rule.arch) == 0; }))
    fail(APR_INVALID,
         "%s: '%s' is no instruction set of this backend; they are portable, avx2, avx512 (this device: %s)",
         rule.origin, rule.arch, isa_name(most_));
  if (!rule.kernel) {
    if (rule.n_values)
      fail(APR_INVALID, "%s: parameters belong to a kernel, and the rule names none", rule.origin);
    return bound;
  }
  std::string known;
  for (const Template& t : templates()) {
    if (std::strcmp(t.name, rule.kernel) == 0) bound.kernel = &t;
    known += std::string(known.empty() ? "" : ", ") + t.name;
  }
  if (!bound.kernel)
    fail(APR_INVALID, "%s: there is no kernel %s; there are %s", rule.origin, rule.kernel, known.c_str());
  for (uint32_t i = 0; i < rule.n_values; ++i) {
    const apr_rule_value& v = rule.values[i];
    const auto param = std::find_if(bound.kernel->params.begin(), bound.kernel->params.end(),
                                    [&](Param p) { return std::strcmp(spec_of(p).c.name, v.name) == 0; });
    if (param == bound.kernel->params.end())
      fail(APR_INVALID, "%s: %s has no parameter %s", rule.origin, rule.kernel, v.name);
    const apr_kernel_param& c = spec_of(*param).c;
    if (std::find(c.values, c.values + c.n_values, v.value) == c.values + c.n_values)
      fail(APR_INVALID, "%s: %s of %s cannot be %lld", rule.origin, v.name, rule.kernel,
           static_cast<long long>(v.value));
    // A rule for another instruction set's devices never matches here.
    const bool for_this = !rule.arch || rule_arch_matches(rule.arch, isa_name(most_));
    if (*param == Param::Isa && v.value > most_ && for_this)
      fail(APR_INVALID, "%s: isa = \"%s\" is more than this device has: %s", rule.origin, kIsaNames[v.value],
           isa_name(most_));
  }
  return bound;
}

Chooser::Chooser(const apr_load_options& options, apr_isa most, bool copies)
    : most_(most), copies_(copies), precise_(options.precise != 0), n_batch_(options.n_batch) {
  if (options.n_rules && !options.rules) fail(APR_INVALID, "rules are missing");
  for (uint32_t i = 0; i < options.n_rules; ++i) {
    const Bound bound = bind(*options.rules[i]);
    if (precise_ && bound.kernel && bound.kernel->eats == Eats::Int8) {
      if (bound.rule->forced)
        fail(APR_INVALID, "%s: %s rounds activations to 8 bits, which a precise session does not do",
             bound.rule->origin, bound.rule->kernel);
      ++passed_over_;
      continue;
    }
    rules_.push_back(bound);
  }
}

KernelChoice Chooser::make(const apr_weight& w, const char* op, uint32_t least, uint32_t most,
                           const Bound* bound) const {
  const apr_kernel_rule* rule = bound ? bound->rule : nullptr;
  const bool can_int8 = w.format->int_group != 0;
  const Eats natural = can_int8 && !precise_ && std::strcmp(op, "linear") == 0 ? Eats::Int8 : Eats::Floats;
  KernelChoice choice;
  const Template* chosen = nullptr;
  for (const Template& t : templates()) {
    if (std::strcmp(t.op, op) != 0) continue;
    std::string why;
    if (most < t.m_min || (t.m_max != 0 && least > t.m_max))
      why = "serves " + (t.m_max ? std::to_string(t.m_min) + " to " + std::to_string(t.m_max) + " tokens"
                                 : std::to_string(t.m_min) + " tokens and more");
    else if (t.eats == Eats::Int8 && !can_int8)
      why = std::string(text(w.format->name)) + " has no integer kernels";
    else if (t.eats == Eats::Int8 && precise_)
      why = "rounds activations, and the session is precise";
    else if (bound && bound->kernel ? &t == bound->kernel : t.eats == natural)
      chosen = &t;
    else
      why = bound && bound->kernel ? "able, but the rule names another"
                                   : "able, but 8-bit activations are faster";
    if (!why.empty())
      choice.rejected += std::string(choice.rejected.empty() ? "" : "\n") + t.name + ": " + why;
  }
  if (!chosen)
    fail(APR_INVALID, "%s%s cannot serve %s (%s, [%llu, %llu], %u to %u tokens): %s",
         rule ? (std::string(rule->origin) + ": ").c_str() : "", rule ? rule->kernel : "this backend",
         text(w.name), text(w.format->name), static_cast<unsigned long long>(w.n),
         static_cast<unsigned long long>(w.k), least, most, choice.rejected.c_str());
  if (rule && rule->layout && std::strcmp(rule->layout, "row_major") != 0)
    fail(APR_INVALID, "%s: this backend reads layout row_major alone", rule->origin);
  choice.name = chosen->name;
  choice.eats = chosen->eats;
  choice.isa = static_cast<apr_isa>(given(rule, Param::Isa, most_));
  choice.task_bytes = static_cast<uint64_t>(given(rule, Param::TaskKib, spec_of(Param::TaskKib).c.preset))
                      << 10;
  choice.copied = given(rule, Param::Memory, copies_) != 0;
  choice.columns = static_cast<uint64_t>(given(rule, Param::Columns, spec_of(Param::Columns).c.preset));
  if (rule) {
    choice.rule = rule->origin;
    choice.reason = "rule " + choice.rule + (rule->why && *rule->why ? std::string(": ") + rule->why : "");
  } else if (std::strcmp(op, "linear") != 0) {
    choice.reason = "the only kernel of this op";
  } else {
    choice.reason = chosen->eats == Eats::Int8 ? "the format has integer kernels: int8 activations"
                    : can_int8                 ? "precise: float activations"
                                               : "the format is a float codec: float activations";
  }
  return choice;
}

KernelChoice Chooser::choose(const apr_weight& w, const char* op, uint32_t least, uint32_t most) const {
  const KernelDemand::Tensor tensor = {text(w.name), text(w.role), text(w.format->name),
                                       "row_major",  w.n,          w.k};
  const KernelDemand demand = {op, least, most, isa_name(most_), &tensor, 1};
  for (const Bound& bound : rules_) {
    const RuleLimits limits =
        bound.kernel ? RuleLimits{bound.kernel->op, bound.kernel->m_min, bound.kernel->m_max} : RuleLimits{};
    if (rule_matches(*bound.rule, limits, demand)) return make(w, op, least, most, &bound);
  }
  return make(w, op, least, most, nullptr);
}

KernelChoice Chooser::gemv(const apr_weight& w) const {
  return choose(w, "linear", 1, std::min<uint32_t>(n_batch_, APR_CPU_GEMV_MAX_M));
}
KernelChoice Chooser::gemm(const apr_weight& w) const {
  return choose(w, "linear", APR_CPU_GEMV_MAX_M + 1, std::max<uint32_t>(n_batch_, APR_CPU_GEMV_MAX_M + 1));
}
KernelChoice Chooser::embed(const apr_weight& w) const { return choose(w, "embed", 1, n_batch_); }

KernelChoice Chooser::obey(const apr_kernel_rule& rule, const apr_weight& w, const char* op, uint32_t least,
                           uint32_t most) const {
  const Bound bound = bind(rule);
  return make(w, op, least, most, &bound);
}

}  // namespace apr::cpu
