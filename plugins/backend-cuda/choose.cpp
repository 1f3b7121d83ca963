#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "plugins/backend-cuda/failure.h"
#include "plugins/backend-cuda/spec.h"

namespace apr::cuda {

namespace {

const apr_layout* find_layout(const apr_codec& codec, const std::string& name) {
  for (uint32_t i = 0; i < codec.n_layouts; ++i)
    if (name == codec.layouts[i]->name) return codec.layouts[i];
  return nullptr;
}

// "" when the template can serve the spec, else the reason why not. Fills the layouts.
std::string refusal(const Template& t, const KernelSpec& spec, const Target& target, std::vector<const apr_layout*>& layouts) {
  if (t.view != spec.view) return fmt::format("eats the {} view", to_string(t.view));
  if (target.capability < t.arch) return fmt::format("needs compute capability {}.{}", t.arch / 10, t.arch % 10);
  if (t.arch_specific && target.capability / 10 != t.arch / 10)
    return fmt::format("uses instructions of sm_{}a alone", t.arch);
  if (spec.m == 0 ? t.m_max != 0 : spec.m < t.m_min || (t.m_max != 0 && spec.m > t.m_max))
    return t.m_max == 0 ? fmt::format("serves {} tokens and more", t.m_min) : fmt::format("serves {} to {} tokens", t.m_min, t.m_max);
  layouts.clear();
  for (const SegmentSpec& segment : spec.segments) {
    const apr_layout* chosen = nullptr;
    for (const std::string& name : t.layouts) {
      const apr_layout* layout = find_layout(*segment.codec, name);
      if (layout != nullptr && (segment.layout == nullptr || segment.layout == layout)) chosen = chosen == nullptr ? layout : chosen;
    }
    if (chosen == nullptr)
      return segment.layout != nullptr ? fmt::format("cannot read layout {} of {}", segment.layout->name, segment.format)
                                       : fmt::format("takes no layout that {} has", segment.format);
    layouts.push_back(chosen);
  }
  return "";
}

}  // namespace

std::optional<KernelConfig> choose(const Registry& registry, const KernelSpec& spec, const Target& target, std::string* why) {
  struct Candidate {
    const Template* kernel;
    std::vector<const apr_layout*> layouts;
  };
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
  if (able.empty()) {
    if (why != nullptr) *why = refused.empty() ? fmt::format("\n  no template has op {}", to_string(spec.op)) : refused;
    return std::nullopt;
  }
  const auto width = [](const Template& t) { return t.m_max == 0 ? UINT32_MAX : t.m_max - t.m_min; };
  std::sort(able.begin(), able.end(), [&](const Candidate& a, const Candidate& b) {
    // A literal template is the form that needs no NVRTC: it serves where no other can.
    if (a.kernel->literal != b.kernel->literal) return b.kernel->literal;
    if (a.kernel->arch != b.kernel->arch) return a.kernel->arch > b.kernel->arch;
    if (width(*a.kernel) != width(*b.kernel)) return width(*a.kernel) < width(*b.kernel);
    return a.kernel->name < b.kernel->name;
  });
  KernelConfig config;
  config.kernel = able[0].kernel;
  config.layouts = able[0].layouts;
  for (const TemplateParam& param : config.kernel->params) config.params.push_back({param.name, param.preset, Constant::Type::Int});
  config.reason = able.size() == 1 ? "the only template that serves it" : "newest architecture, then narrowest range of tokens; also able:";
  for (size_t i = 1; i < able.size(); ++i) config.reason += " " + able[i].kernel->name;
  return config;
}

}  // namespace apr::cuda
