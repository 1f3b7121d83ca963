// `aprctl doctor`: what this machine and installation have, what is wrong, and what to do about it.
#include "core/doctor/doctor.h"

#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "aprctl/command_line.h"
#include "aprctl/commands.h"
#include "aprctl/engine.h"
#include "aprctl/installation.h"
#include "aprctl/model_options.h"
#include "aprctl/probe_report.h"
#include "core/base/error.h"
#include "core/base/format.h"
#include "core/base/wrap.h"

namespace apr::ctl {
namespace {

using nlohmann::ordered_json;

constexpr size_t kIndent = 9;  // of what follows the level

void print_finding(const HealthFinding& f) {
  const std::string text = fmt::format("{} {}: {}", f.area, f.what, f.found);
  fmt::print("{:<8} {}", to_string(f.level), wrapped(text, kIndent).substr(kIndent));
  if (!f.advice.empty()) fmt::print("{}", wrapped("-> " + f.advice, kIndent));
  std::fflush(stdout);
}

ordered_json finding_json(const HealthFinding& f) {
  ordered_json out = {{"area", f.area},   {"what", f.what},     {"level", to_string(f.level)},
                      {"found", f.found}, {"advice", f.advice}, {"blocks", f.blocks}};
  if (f.value) out["value"] = *f.value, out["unit"] = f.unit;
  return out;
}

}  // namespace

int doctor_main(const Arguments& args) {
  CommandLine line(
      "doctor",
      "Examine this machine and installation: plugins, backends, their drivers and compilers, devices, "
      "memory and bandwidth (measured), the kernel cache, the shipped model, environment variables. "
      "Each problem comes with what to do. Exit 0: models run on the CPU; 1: something prevents it.",
      "aprctl doctor --json");
  PluginOptions::add(line);
  line.options().add_options()("json", boost::program_options::bool_switch(), "print JSON");
  if (!line.parse(args)) return kExitOk;
  const Probes& probes = probes_in_force();
  const bool json = line.flag("json");
  Catalog catalog(PluginOptions::search_paths(line, probes));

  DoctorRequest request;
  request.catalog = &catalog;
  request.reference = kReferenceBackend;
  request.kernel_cache = kernel_cache_folder(probes);
  request.unknown_probes = probes.unknown;
  request.settings = backend_settings(probes);
  std::erase_if(request.settings, [](const auto& setting) { return setting.first == "kernel_cache"; });
  request.settings.emplace_back("kernel_cache", request.kernel_cache);
  try {
    request.settings.emplace_back("data_dir", data_folder().string());
    request.model = shipped_model();
  } catch (const Error& error) {
    request.model_missing = error.what();
  }

  ordered_json findings = ordered_json::array();
  size_t problems = 0;
  bool blocked = false;
  const HealthFn tell = [&](const HealthFinding& finding) {
    problems += finding.level == HealthLevel::Problem ? 1 : 0;
    blocked = blocked || finding.blocks;
    findings.push_back(finding_json(finding));
    if (!json) print_finding(finding);
  };
  for (const auto examine : {examine_plugins, examine_backends, examine_cache, examine_model, examine_probes})
    examine(request, tell);

  if (json) {
    const ordered_json out = {{"version", APR_VERSION},        {"program", executable_path().string()},
                              {"probes", probes_json(probes)}, {"problems", problems},
                              {"cpu_usable", !blocked},        {"findings", findings}};
    fmt::print("{}\n", out.dump(2, ' ', false, ordered_json::error_handler_t::replace));
  } else {
    for (const auto& [name, value] : probes.in_force)
      fmt::print("{:<8} {}", "set",
                 wrapped(fmt::format("{}={}", name, printable(value, kLongPath)), kIndent).substr(kIndent));
    fmt::print("{}; models {} on the CPU\n",
               problems == 0 ? "no problem" : fmt::format("{} problem{}", problems, problems == 1 ? "" : "s"),
               blocked ? "cannot run" : "can run");
  }
  return blocked ? kExitError : kExitOk;
}

}  // namespace apr::ctl
