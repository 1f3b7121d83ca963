#include "aprctl/sides.h"

#include <algorithm>

#include "aprctl/engine.h"
#include "core/base/error.h"
#include "core/base/format.h"

namespace apr::ctl {
namespace {

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  size_t begin = 0;
  for (size_t end; (end = text.find(separator, begin)) != std::string::npos; begin = end + 1)
    parts.push_back(text.substr(begin, end - begin));
  parts.push_back(text.substr(begin));
  return parts;
}

// Settings that a probe changes and that select how a plan is computed.
const ProbeInfo* probe_of_setting(const std::string& setting) {
  for (const ProbeInfo& probe : probe_table())
    if (probe.setting == setting && probe.setting != "kernel_cache") return &probe;
  return nullptr;
}

bool is_flag(const ProbeInfo& probe) { return std::holds_alternative<bool Probes::*>(probe.slot); }

std::string known_options() {
  std::string known = "precise";
  for (const ProbeInfo& probe : probe_table())
    if (!probe.setting.empty() && probe.setting != "kernel_cache")
      known += fmt::format(", {}{}", probe.setting, is_flag(probe) ? "" : "=...");
  return known;
}

DeviceRequest with_settings(DeviceRequest request, const SideSpec& spec) {
  for (const auto& [name, value] : spec.settings) {
    std::erase_if(request.settings, [&name = name](const auto& setting) { return setting.first == name; });
    request.settings.emplace_back(name, value);
  }
  return request;
}

LoadRequest load_for(const SideSpec& spec, uint32_t n_tokens, const apr_kernel_rule* const* rules,
                     uint32_t n_rules) {
  LoadRequest load;
  load.rules = rules, load.n_rules = n_rules;
  load.n_ctx = load.n_batch = n_tokens;
  load.precise = spec.precise;
  return load;
}

}  // namespace

SideSpec parse_side(const std::string& text) {
  const std::vector<std::string> parts = split(text, ':');
  SideSpec spec;
  spec.text = text;
  spec.backend = parts[0];
  if (spec.backend.empty())
    throw usage_error("'{}' names no backend; write one like cuda, cpu:precise or cuda:no_fusion",
                      printable(text));
  for (size_t i = 1; i < parts.size(); ++i) {
    const size_t equals = parts[i].find('=');
    const std::string name = parts[i].substr(0, equals);
    if (parts[i] == "precise") {
      spec.precise = true;
      continue;
    }
    const ProbeInfo* probe = probe_of_setting(name);
    if (probe == nullptr || (equals == std::string::npos) != is_flag(*probe))
      throw usage_error("'{}': a backend has no option '{}' here; there are {}", printable(text),
                        printable(parts[i]), known_options());
    spec.settings.emplace_back(name, equals == std::string::npos ? "1" : parts[i].substr(equals + 1));
  }
  return spec;
}

std::pair<SideSpec, SideSpec> parse_sides(const std::string& text) {
  const std::vector<std::string> parts = split(text, ',');
  if (parts.size() == 1)
    return {parse_side(std::string(kReferenceBackend) + ":precise"), parse_side(parts[0])};
  if (parts.size() == 2) return {parse_side(parts[0]), parse_side(parts[1])};
  throw usage_error("'{}' names {} backends; a comparison has two, like cpu:precise,cuda", printable(text),
                    parts.size());
}

Side::Side(Catalog& catalog, const apr_plan& plan, const SideSpec& spec, DeviceRequest device,
           uint32_t n_tokens, const apr_kernel_rule* const* rules, uint32_t n_rules)
    : spec_(spec),
      device_(catalog.backend(spec.backend), with_settings(std::move(device), spec)),
      session_(device_, plan, load_for(spec, n_tokens, rules, n_rules)) {}

}  // namespace apr::ctl
