#include "plugins/backend-cuda/rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "plugins/backend-cuda/failure.h"

namespace apr::cuda {

namespace {

bool is_architecture(const std::string& text) {
  for (const std::string_view prefix : {"sm_", "compute_"}) {
    if (!text.starts_with(prefix)) continue;
    std::string digits = text.substr(prefix.size());
    if (!digits.empty() && digits.back() == 'a') digits.pop_back();
    return digits.size() >= 2 && digits.size() <= 3 &&
           digits.find_first_not_of("0123456789") == std::string::npos;
  }
  return false;
}

// Those whose kernels a step never launches.
bool in_a_step(Op op) {
  switch (op) {
    case Op::Embed:
    case Op::RmsNorm:
    case Op::Convert:
    case Op::Linear:
    case Op::Rope:
    case Op::RopeKv:
    case Op::Attention:
    case Op::Add:
    case Op::Swiglu:
    case Op::Argmax:
      return true;
    case Op::Gather:
    case Op::TopK:
    case Op::ReadBandwidth:
    case Op::WeightRange:
      return false;
  }
  return false;
}

const Template* find_kernel(const apr_kernel_rule& rule, const Registry& registry) {
  std::string known;
  for (const Template& t : registry.templates) {
    if (t.name == rule.kernel) return &t;
    if (rule.op == nullptr || rule.op == std::string(to_string(t.op))) known += " " + t.name;
  }
  throw failure(APR_INVALID, "{}: there is no kernel template {}; there are{}", rule.origin, rule.kernel,
                known);
}

void check_values(const apr_kernel_rule& rule, const Template& kernel) {
  for (uint32_t i = 0; i < rule.n_values; ++i) {
    const apr_rule_value& given = rule.values[i];
    const auto param = std::find_if(kernel.params.begin(), kernel.params.end(),
                                    [&](const TemplateParam& p) { return p.name == given.name; });
    if (param == kernel.params.end()) {
      std::string known;
      for (const TemplateParam& p : kernel.params) known += " " + p.name;
      throw failure(APR_INVALID, "{}: {} has no parameter {}; it has{}", rule.origin, kernel.name, given.name,
                    known);
    }
    if (std::find(param->values.begin(), param->values.end(), given.value) == param->values.end()) {
      std::string known;
      for (const int64_t value : param->values) known += fmt::format(" {}", value);
      throw failure(APR_INVALID, "{}: {} of {} cannot be {}; it is one of{}", rule.origin, given.name,
                    kernel.name, given.value, known);
    }
  }
}

}  // namespace

Rules::Rules(const apr_load_options& options, const Registry& registry, const std::string& arch, bool precise)
    : arch_(arch) {
  for (uint32_t i = 0; i < options.n_rules; ++i) {
    const apr_kernel_rule& rule = *options.rules[i];
    if (rule.struct_size < sizeof rule)
      throw failure(APR_INVALID, "rule {}: its struct_size is {} instead of {}", i, rule.struct_size,
                    sizeof rule);
    if (rule.arch != nullptr && !is_architecture(rule.arch))
      throw failure(
          APR_INVALID,
          "{}: '{}' is no architecture of this backend; they are written as sm_90a (this device is {})",
          rule.origin, rule.arch, arch);
    BoundRule bound{&rule, nullptr, {}};
    if (rule.kernel != nullptr) {
      bound.kernel = find_kernel(rule, registry);
      if (!in_a_step(bound.kernel->op))
        throw failure(APR_INVALID, "{}: {} is no kernel of a step, so no rule can choose it", rule.origin,
                      rule.kernel);
      check_values(rule, *bound.kernel);
      bound.limits = {to_string(bound.kernel->op), bound.kernel->m_min, bound.kernel->m_max};
      if (precise && bound.kernel->view == View::Int) {
        if (rule.forced != 0)
          throw failure(APR_INVALID,
                        "{}: {} rounds activations to 8 bits, which a precise session does not do",
                        rule.origin, rule.kernel);
        ++passed_over_;
        continue;
      }
    } else if (rule.n_values > 0) {
      throw failure(APR_INVALID, "{}: parameters belong to a kernel, and the rule names none", rule.origin);
    }
    rules_.push_back(bound);
  }
}

const BoundRule* Rules::match(const KernelDemand& demand) const {
  for (const BoundRule& bound : rules_)
    if (rule_matches(*bound.rule, bound.limits, demand)) return &bound;
  return nullptr;
}

const apr_kernel_rule* Rules::forced() const {
  for (const BoundRule& bound : rules_)
    if (bound.rule->forced != 0) return bound.rule;
  return nullptr;
}

std::optional<View> Rules::view(const apr_weight& weight, Served m) const {
  // The layout may be decided or not: a rule's word on it does not change the view.
  const KernelDemand::Tensor tensor = {weight.name, weight.role, weight.format->name,
                                       nullptr,     weight.n,    weight.k};
  const BoundRule* rule = match({to_string(Op::Linear), m.least, m.most, arch_.c_str(), &tensor, 1});
  if (rule == nullptr || rule->kernel == nullptr) return std::nullopt;
  return rule->kernel->view;
}

}  // namespace apr::cuda
