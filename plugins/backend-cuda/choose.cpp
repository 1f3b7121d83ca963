#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "plugins/backend-cuda/failure.h"
#include "plugins/backend-cuda/spec.h"
#include "ptx-templates/args.h"

namespace apr::cuda {

const apr_layout* find_layout(const apr_codec& codec, const std::string& name) {
  for (uint32_t i = 0; i < codec.n_layouts; ++i)
    if (name == codec.layouts[i]->name) return codec.layouts[i];
  return nullptr;
}

namespace {

int64_t constant(const KernelSpec& spec, const char* name) {
  for (const Constant& c : spec.constants)
    if (c.name == name) return c.value;
  return 0;
}

bool holds(const TemplatePreset& preset, const KernelSpec& spec, const Target& target) {
  int64_t n = 0, bits = 0;
  for (const SegmentSpec& s : spec.segments) {
    n += s.n;
    bits = std::max<int64_t>(bits, (int64_t{s.codec->block_bytes} * 8 + s.codec->block / 2) / s.codec->block);
  }
  return std::all_of(preset.ranges.begin(), preset.ranges.end(), [&](const TemplatePreset::Range& range) {
    const int64_t value = range.what == "m"          ? spec.m
                          : range.what == "k"        ? spec.k
                          : range.what == "n"        ? n
                          : range.what == "segments" ? static_cast<int64_t>(spec.segments.size())
                          : range.what == "bits"     ? bits
                                                     : target.capability;
    return range.least <= value && value <= range.most;
  });
}

// "" when the template can serve the spec, else the reason why not. Fills the layouts.
std::string refusal(const Template& t, const KernelSpec& spec, const Target& target,
                    std::vector<const apr_layout*>& layouts) {
  if (t.view != spec.view) return fmt::format("eats the {} view", to_string(t.view));
  if (target.capability < t.arch)
    return fmt::format("needs compute capability {}.{}", t.arch / 10, t.arch % 10);
  if (t.arch_specific && target.capability / 10 != t.arch / 10)
    return fmt::format("uses instructions of sm_{}a alone", t.arch);
  if (spec.m == 0 ? t.m_max != 0 : spec.m < t.m_min || (t.m_max != 0 && spec.m > t.m_max))
    return t.m_max == 0 ? fmt::format("serves {} tokens and more", t.m_min)
                        : fmt::format("serves {} to {} tokens", t.m_min, t.m_max);
  // It would read 16-bit activations where there are none.
  if (spec.op == Op::Linear && spec.m != 0 && t.m_max == 0)
    return "eats 16-bit activations, which steps of few tokens do not have (a rule's m = [9, 1000000] leaves "
           "them "
           "out)";
  if (spec.segments.size() > t.max_segments) return fmt::format("takes {} matrices at most", t.max_segments);
  if (!t.norm && constant(spec, "kNorm") != 0) return "folds no norm in";
  constexpr const char* kEpilogues[] = {"none", "residual", "swiglu"};
  static_assert(kEpilogueNone == 0 && kEpilogueResidual == 1 && kEpilogueSwiglu == 2);
  if (!t.epilogues.empty() && std::find(t.epilogues.begin(), t.epilogues.end(),
                                        kEpilogues[constant(spec, "kEpilogue")]) == t.epilogues.end())
    return fmt::format("has no {} epilogue", kEpilogues[constant(spec, "kEpilogue")]);
  for (const SegmentSpec& segment : spec.segments)
    if (!t.formats.empty() &&
        std::find(t.formats.begin(), t.formats.end(), segment.format) == t.formats.end())
      return fmt::format("does not read {}", segment.format);
  layouts.clear();
  for (const SegmentSpec& segment : spec.segments) {
    const apr_layout* chosen = nullptr;
    for (const std::string& name : t.layouts) {
      const apr_layout* layout = find_layout(*segment.codec, name);
      if (layout != nullptr && (segment.layout == nullptr || segment.layout == layout))
        chosen = chosen == nullptr ? layout : chosen;
    }
    if (chosen == nullptr)
      return segment.layout != nullptr
                 ? fmt::format("cannot read layout {} of {}", segment.layout->name, segment.format)
                 : fmt::format("takes no layout that {} has", segment.format);
    layouts.push_back(chosen);
  }
  return "";
}

}  // namespace

namespace {

int64_t param_value(const TemplateParam& param, const TemplatePreset* preset, const apr_kernel_rule* rule) {
  int64_t value = param.preset;
  if (preset != nullptr)
    for (const auto& [name, measured] : preset->params)
      if (name == param.name) value = measured;
  if (rule != nullptr)
    for (uint32_t i = 0; i < rule->n_values; ++i)
      if (param.name == rule->values[i].name) value = rule->values[i].value;
  return value;
}

// "m = [1, 1], gemv_int" is in the rule's file; here is why the kernel is what it is.
std::string reason_of(const BoundRule* bound, bool only, const TemplatePreset* preset) {
  std::string reason;
  if (bound != nullptr) {
    const apr_kernel_rule& rule = *bound->rule;
    reason = fmt::format("rule {}{}", rule.origin,
                         rule.why == nullptr || rule.why[0] == '\0' ? "" : fmt::format(": {}", rule.why));
    if (bound->kernel == nullptr) reason += "; it leaves the template open: ";
  }
  if (bound == nullptr || bound->kernel == nullptr)
    reason +=
        only ? "the only template that serves it" : "newest architecture, then narrowest range of tokens";
  if (preset != nullptr) reason += "; parameters: " + preset->why;
  return reason;
}

}  // namespace

std::optional<KernelConfig> choose(const Registry& registry, const KernelSpec& spec, const Target& target,
                                   std::string* why, const BoundRule* rule) {
  struct Candidate {
    const Template* kernel;
    std::vector<const apr_layout*> layouts;
  };
  const Template* const named = rule == nullptr ? nullptr : rule->kernel;
  std::vector<Candidate> able;
  std::string refused;
  for (const Template& t : registry.templates) {
    if (t.op != spec.op) continue;
    Candidate candidate{&t, {}};
    const std::string reason = refusal(t, spec, target, candidate.layouts);
    if (reason.empty())
      able.push_back(std::move(candidate));
    else
      refused += fmt::format("\n  {}: {}", t.name, reason);
  }
  const auto width = [](const Template& t) { return t.m_max == 0 ? UINT32_MAX : t.m_max - t.m_min; };
  std::sort(able.begin(), able.end(), [&](const Candidate& a, const Candidate& b) {
    // The one that a rule names, if it is among them.
    if ((a.kernel == named) != (b.kernel == named)) return a.kernel == named;
    // A literal template is the form that needs no NVRTC: it serves where no other can.
    if (a.kernel->literal != b.kernel->literal) return b.kernel->literal;
    if (a.kernel->arch != b.kernel->arch) return a.kernel->arch > b.kernel->arch;
    if (width(*a.kernel) != width(*b.kernel)) return width(*a.kernel) < width(*b.kernel);
    return a.kernel->name < b.kernel->name;
  });
  if (able.empty() || (named != nullptr && able[0].kernel != named)) {
    for (const Candidate& candidate : able)
      refused += fmt::format("\n  {}: can serve it", candidate.kernel->name);
    if (why != nullptr)
      *why = refused.empty() ? fmt::format("\n  no template has op {}", to_string(spec.op)) : refused;
    return std::nullopt;
  }
  KernelConfig config;
  config.kernel = able[0].kernel;
  config.layouts = able[0].layouts;
  const auto found = std::find_if(config.kernel->presets.begin(), config.kernel->presets.end(),
                                  [&](const TemplatePreset& p) { return holds(p, spec, target); });
  const TemplatePreset* preset = found == config.kernel->presets.end() ? nullptr : &*found;
  for (const TemplateParam& param : config.kernel->params)
    config.params.push_back({param.name, param_value(param, preset, rule == nullptr ? nullptr : rule->rule),
                             Constant::Type::Int});
  config.reason = reason_of(rule, able.size() == 1, preset);
  for (size_t i = 1; i < able.size(); ++i)
    config.rejected += fmt::format("{}: able, {}\n", able[i].kernel->name,
                                   named != nullptr ? "but the rule names another" : "but comes after");
  for (size_t at = 0; at + 3 <= refused.size();) {  // "\n  name: reason" as "name: reason\n"
    const size_t end = std::min(refused.find('\n', at + 1), refused.size());
    config.rejected += refused.substr(at + 3, end - at - 3) + "\n";
    at = end;
  }
  if (!config.rejected.empty()) config.rejected.pop_back();
  return config;
}

}  // namespace apr::cuda
