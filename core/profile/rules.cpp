#include "core/profile/rules.h"

#include <fnmatch.h>

#include <algorithm>
#include <climits>

#include "apr/rules.hpp"
#include "core/base/error.h"
#include "core/base/format.h"
#include "core/base/sha256.h"

namespace apr {

namespace {

[[noreturn]] void fail(const std::string& where, const std::string& message) {
  throw Error("{}: {}", where, message);
}

// "file:12" and a parameter's own line: "file:14".
std::string at_line(const std::string& origin, int line) {
  const size_t colon = origin.rfind(':');
  return line == 0 || colon == std::string::npos ? origin
                                                 : fmt::format("{}:{}", origin.substr(0, colon), line);
}

template <typename Items, typename Get>
std::string names_of(const Items& items, Get&& get) {
  std::vector<std::string> names;
  for (const auto& item : items) {
    std::string name = get(item);
    if (!name.empty() && std::find(names.begin(), names.end(), name) == names.end())
      names.push_back(std::move(name));
  }
  return names.empty() ? "none" : joined(names);
}

bool contains(const std::vector<std::string>& list, const std::string& text) {
  return std::find(list.begin(), list.end(), text) != list.end();
}

int64_t value_of(const ProfileRule& rule, const KernelTemplate& kernel, const RuleParam& given) {
  const std::string where = at_line(rule.origin, given.line);
  const auto param = std::find_if(kernel.params.begin(), kernel.params.end(),
                                  [&](const KernelParam& p) { return p.name == given.name; });
  if (param == kernel.params.end())
    fail(where, fmt::format("{} has no parameter '{}'; it has {}", kernel.name, printable(given.name),
                            names_of(kernel.params, [](const KernelParam& p) { return p.name; })));
  std::string shown;
  if (const auto* text = std::get_if<std::string>(&given.value)) {
    for (size_t i = 0; i < param->value_names.size(); ++i)
      if (param->value_names[i] == *text) return param->values[i];
    shown = fmt::format("\"{}\"", printable(*text));
  } else {
    const int64_t value = std::get<int64_t>(given.value);
    if (param->value_names.empty() &&
        std::find(param->values.begin(), param->values.end(), value) != param->values.end())
      return value;
    shown = std::to_string(value);
  }
  fail(where, fmt::format("{} of {} cannot be {}; it is {}", param->name, kernel.name, shown,
                          names_of(param->values, [&](int64_t v) {
                            return param->value_names.empty() ? std::to_string(v)
                                                              : fmt::format("\"{}\"", param->text(v));
                          })));
}

// What can be said of a rule without a model.
const KernelTemplate* check(const ProfileRule& rule, const std::string& backend,
                            const std::vector<KernelTemplate>& templates) {
  const auto op_of = [](const KernelTemplate& t) { return t.op; };
  if (rule.op && std::none_of(templates.begin(), templates.end(),
                              [&](const KernelTemplate& t) { return t.op == *rule.op; }))
    fail(rule.origin, fmt::format("backend {} has no op '{}'; it has {}", backend, printable(*rule.op),
                                  names_of(templates, op_of)));
  std::vector<std::string> layouts;
  for (const KernelTemplate& t : templates)
    if (!rule.op || t.op == *rule.op) layouts.insert(layouts.end(), t.layouts.begin(), t.layouts.end());
  if (rule.layout && !contains(layouts, *rule.layout))
    fail(rule.origin,
         fmt::format("no kernel of backend {} reads layout '{}'; there are {}", backend,
                     printable(*rule.layout), names_of(layouts, [](const std::string& l) { return l; })));
  if (!rule.kernel) return nullptr;
  const KernelTemplate* kernel = find_template(templates, *rule.kernel);
  if (kernel == nullptr)
    fail(rule.origin, fmt::format("backend {} has no kernel '{}'; it has {}", backend,
                                  printable(*rule.kernel), names_of(templates, [&](const KernelTemplate& t) {
                                    return !rule.op || t.op == *rule.op ? t.name : "";
                                  })));
  const auto never = [&](const std::string& why) {
    fail(rule.origin, fmt::format("the rule can never match: {}", why));
  };
  if (rule.op && *rule.op != kernel->op)
    never(fmt::format("{} computes op {}, not {}", kernel->name, kernel->op, *rule.op));
  if (rule.m.line != 0 &&
      (rule.m.most < kernel->m_min || (kernel->m_max != 0 && rule.m.least > kernel->m_max)))
    never(kernel->m_max == 0
              ? fmt::format("{} serves {} tokens and more", kernel->name, kernel->m_min)
              : fmt::format("{} serves {} to {} tokens", kernel->name, kernel->m_min, kernel->m_max));
  if (kernel->layouts.empty() && (rule.qtype || rule.tensor || rule.role || rule.layout || rule.n.line != 0))
    never(fmt::format("{} reads no weights, so it has no qtype, tensor, role, layout or n", kernel->name));
  if (rule.layout && !contains(kernel->layouts, *rule.layout))
    never(fmt::format("{} reads layouts {}, not {}", kernel->name, joined(kernel->layouts), *rule.layout));
  if (rule.qtype && !kernel->formats.empty() && !contains(kernel->formats, *rule.qtype))
    never(fmt::format("{} reads {}, not {}", kernel->name, joined(kernel->formats), *rule.qtype));
  return kernel;
}

bool holds(const RuleRange& outer, const RuleRange& inner) {
  return outer.least <= inner.least && inner.most <= outer.most;
}
bool holds(const std::optional<std::string>& outer, const std::optional<std::string>& inner) {
  return !outer || (inner && *outer == *inner);
}
bool is_pattern(const std::string& text) { return text.find_first_of("*?[") != std::string::npos; }
bool tensor_holds(const std::optional<std::string>& outer, const ProfileRule& inner) {
  if (!outer || *outer == "*") return true;
  if (inner.tensor)
    return *outer == *inner.tensor ||
           (!is_pattern(*inner.tensor) && weight_name_matches(outer->c_str(), inner.tensor->c_str(), ""));
  return inner.role && !is_pattern(*inner.role) && fnmatch(outer->c_str(), inner.role->c_str(), 0) == 0;
}

// The tokens for which a rule can match: its own range within its kernel's.
RuleRange tokens(const ProfileRule& rule, const std::optional<KernelTemplate>& kernel) {
  RuleRange m = rule.m;
  if (!kernel) return m;
  m.least = std::max<uint64_t>(m.least, kernel->m_min);
  if (kernel->m_max != 0) m.most = std::min<uint64_t>(m.most, kernel->m_max);
  return m;
}

// Everything that `b` matches, `a` matches before it.
bool covers(const ProfileRule& a, const std::optional<KernelTemplate>& ka, const ProfileRule& b,
            const std::optional<KernelTemplate>& kb) {
  const std::optional<std::string> op_a = ka ? std::optional(ka->op) : a.op,
                                   op_b = kb ? std::optional(kb->op) : b.op;
  // One kernel may serve several numbers of tokens, so a range that reaches one of them reaches all of it:
  // only ranges that contain each other are compared.
  return holds(op_a, op_b) && holds(a.qtype, b.qtype) && holds(a.role, b.role) && holds(a.layout, b.layout) &&
         holds(a.arch, b.arch) && tensor_holds(a.tensor, b) && holds(tokens(a, ka), tokens(b, kb)) &&
         holds(a.n, b.n) && holds(a.k, b.k);
}

const char* text_or_null(const std::optional<std::string>& text) { return text ? text->c_str() : nullptr; }
uint32_t to_u32(uint64_t value) { return static_cast<uint32_t>(std::min<uint64_t>(value, UINT32_MAX)); }

}  // namespace

std::string KernelParam::text(int64_t value) const {
  for (size_t i = 0; i < value_names.size(); ++i)
    if (values[i] == value) return value_names[i];
  return std::to_string(value);
}

std::vector<KernelTemplate> kernel_templates(
    const apr_backend& backend, const std::vector<std::pair<std::string, std::string>>& settings) {
  std::vector<KernelTemplate> list;
  if (backend.struct_size < offsetof(apr_backend, templates) + sizeof backend.templates ||
      backend.templates == nullptr)
    return list;
  std::vector<apr_setting> crossing;
  crossing.reserve(settings.size());
  for (const auto& [key, value] : settings) crossing.push_back({key.c_str(), value.c_str()});
  const apr_kernel_template_fn keep = [](void* user, const apr_kernel_template* t) {
    KernelTemplate kernel{t->name, t->op,    t->view,  t->summary, t->arch, t->origin,
                          t->hash, t->m_min, t->m_max, {},         {},      {}};
    kernel.layouts.assign(t->layouts, t->layouts + t->n_layouts);
    kernel.formats.assign(t->formats, t->formats + t->n_formats);
    for (uint32_t i = 0; i < t->n_params; ++i) {
      const apr_kernel_param& p = *t->params[i];
      KernelParam param{p.name, p.meaning, {p.values, p.values + p.n_values}, {}, p.preset};
      if (p.value_names != nullptr) param.value_names.assign(p.value_names, p.value_names + p.n_values);
      kernel.params.push_back(std::move(param));
    }
    static_cast<std::vector<KernelTemplate>*>(user)->push_back(std::move(kernel));
  };
  apr_error error{};
  error.struct_size = sizeof error;
  if (backend.templates(crossing.data(), static_cast<uint32_t>(crossing.size()), keep, &list, &error) !=
      APR_OK)
    throw Error("backend {}: {}", backend.name, error.message);
  return list;
}

const KernelTemplate* find_template(const std::vector<KernelTemplate>& templates, const std::string& name) {
  const auto found = std::find_if(templates.begin(), templates.end(),
                                  [&](const KernelTemplate& t) { return t.name == name; });
  return found == templates.end() ? nullptr : &*found;
}

bool may_serve(const KernelTemplate& kernel, const apr_kernel_info& in_use, const apr_quant_format& format) {
  if (kernel.op != in_use.op || kernel.name == in_use.kernel) return false;
  if (kernel.m_min > in_use.m_min || (kernel.m_max != 0 && kernel.m_max < in_use.m_max)) return false;
  if (!kernel.formats.empty() &&
      std::find(kernel.formats.begin(), kernel.formats.end(), format.name) == kernel.formats.end())
    return false;
  return kernel.view != "int" || format.int_group != 0;
}

std::string templates_hash(const std::vector<KernelTemplate>& templates) {
  Sha256 hash;
  for (const KernelTemplate& t : templates) hash.update(fmt::format("{} {}\n", t.name, t.hash));
  return hash.finish_hex().substr(0, 16);
}

void KernelRules::add(const std::vector<ProfileRule>& rules, const std::string& backend,
                      const std::vector<KernelTemplate>& templates) {
  for (const ProfileRule& rule : rules) {
    if (!rule.backend.empty() && rule.backend != backend) continue;
    const KernelTemplate* named = check(rule, backend, templates);
    const std::optional<KernelTemplate> kernel = named == nullptr ? std::nullopt : std::optional(*named);
    for (const Kept& earlier : kept_)
      if (earlier.rule.forced == rule.forced && covers(earlier.rule, earlier.kernel, rule, kernel))
        fail(rule.origin,
             fmt::format("the rule can never match: the one at {} comes first and matches all that it does",
                         earlier.rule.origin));
    Kept& kept = kept_.emplace_back(Kept{rule, kernel, {}, {}});
    for (const RuleParam& param : kept.rule.params)
      kept.values.push_back({param.name.c_str(), value_of(rule, *kernel, param)});
    const ProfileRule& r = kept.rule;
    apr_kernel_rule& c = kept.c;
    c.struct_size = sizeof c;
    c.origin = r.origin.c_str();
    c.why = r.why.c_str();
    c.op = text_or_null(r.op), c.qtype = text_or_null(r.qtype), c.tensor = text_or_null(r.tensor),
    c.role = text_or_null(r.role);
    c.layout = text_or_null(r.layout), c.arch = text_or_null(r.arch), c.kernel = text_or_null(r.kernel);
    c.m[0] = to_u32(r.m.least), c.m[1] = to_u32(r.m.most);
    c.n[0] = r.n.least, c.n[1] = r.n.most;
    c.k[0] = r.k.least, c.k[1] = r.k.most;
    c.values = kept.values.data();
    c.n_values = static_cast<uint32_t>(kept.values.size());
    c.forced = r.forced ? 1 : 0;
    list_.push_back(&c);
  }
}

}  // namespace apr
