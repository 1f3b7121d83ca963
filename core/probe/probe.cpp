#include "core/probe/probe.h"

#include <unistd.h>

#include <algorithm>
#include <array>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/base/log.h"
#include "core/probe/nearest.h"
#include "core/probe/parse.h"

namespace apr {

namespace {

constexpr std::array kTable = {
    ProbeInfo{"APR_PLUGIN_PATH", &Probes::plugin_path, "",
              "folders searched for plugins, after --plugin-path and before the user's data folder", "none"},
    ProbeInfo{"APR_CPU_ISA", &Probes::cpu_isa, "isa", "highest instruction set that CPU kernels may use",
              "the highest that the processor has"},
    ProbeInfo{"APR_NO_GRAPH", &Probes::no_graph, "no_graph",
              "a device runs the same kernels one by one instead of a captured graph", "0"},
    ProbeInfo{"APR_NO_FUSION", &Probes::no_fusion, "no_fusion",
              "every operation of a plan gets a kernel of its own", "0"},
    ProbeInfo{"APR_KERNEL_CACHE", &Probes::kernel_cache, "kernel_cache", "folder of compiled kernels",
              "$XDG_CACHE_HOME/apr/kernels or ~/.cache/apr/kernels"},
    ProbeInfo{"APR_SKIP_PARITY_GATE", &Probes::skip_parity_gate, "",
              "a device is not compared with the CPU before its first answer", "0"},
    ProbeInfo{"APR_SKIP_FP8_WARMUP", &Probes::skip_fp8_warmup, "",
              "weights in 8-bit floats are not read and checked before a device gets them", "0"},
    ProbeInfo{"APR_STAGE_DUMP", &Probes::stage_dump, "", "new folder that receives every stage's output",
              "no dump"},
    ProbeInfo{"APR_FORCE_QTYPE", &Probes::force_qtype, "",
              "matching weights are re-quantised to another format at load; the first match wins",
              "as in the file"},
    ProbeInfo{"APR_LM_HEAD_FORCE_QTYPE", &Probes::lm_head_force_qtype, "",
              "the output head is re-quantised to another format at load, also when it shares the "
              "embedding's weights",
              "as in the file"},
    ProbeInfo{"APR_PROFILE", &Probes::profile, "",
              "profile whose rules choose kernels, as --profile, which wins over it", "default"},
    ProbeInfo{"APR_FORCE_KERNEL", &Probes::force_kernel, "",
              "matching weights are read by these kernels, before any profile's rule; the first match wins",
              "as the profile says"},
};

constexpr std::string_view kPrefix = "APR_";
constexpr std::string_view kTestPrefix = "APR_TEST_";

std::string unknown_name(std::string_view name) {
  std::vector<std::string_view> known;
  known.reserve(kTable.size());
  for (const ProbeInfo& probe : kTable) known.push_back(probe.name);
  const auto close = nearest(name, known);
  return fmt::format(
      "environment: {} is no probe of this program and changes nothing{}; `aprctl probes` lists them",
      printable(name), close ? fmt::format(" (did you mean {}?)", *close) : "");
}

}  // namespace

std::span<const ProbeInfo> probe_table() { return kTable; }

std::string_view probe_values(const ProbeInfo& probe) {
  return std::visit([](auto member) { return values_of(member); }, probe.slot);
}

ReadProbes read_probes(const char* const* environment) {
  ReadProbes result;
  std::vector<std::pair<std::string_view, std::string_view>> set;
  for (const char* const* entry = environment; entry && *entry; ++entry) {
    const std::string_view text = *entry;
    const size_t equals = text.find('=');
    if (!text.starts_with(kPrefix) || text.starts_with(kTestPrefix) || equals == std::string_view::npos)
      continue;
    set.emplace_back(text.substr(0, equals), text.substr(equals + 1));
  }
  // By the table's order, so that announcements and the first error do not depend on the order of the
  // environment.
  for (const ProbeInfo& probe : kTable) {
    const auto found =
        std::find_if(set.begin(), set.end(), [&](const auto& entry) { return entry.first == probe.name; });
    if (found == set.end()) continue;
    std::visit([&](auto member) { parse_value(probe.name, found->second, result.probes.*member); },
               probe.slot);
    result.probes.in_force.emplace_back(probe.name, found->second);
    set.erase(found);
  }
  std::sort(set.begin(), set.end());
  for (const auto& [name, value] : set) {
    result.warnings.push_back(unknown_name(name));
    result.probes.unknown.push_back(printable(name));
  }
  return result;
}

Probes announce_probes() {
  ReadProbes read = read_probes(environ);
  for (const std::string& warning : read.warnings) log_warning("{}", warning);
  for (const ProbeInfo& probe : kTable) {
    for (const auto& [name, value] : read.probes.in_force) {
      // A warning, since a forgotten probe explains many a surprise.
      if (name == probe.name) log_warning("probe {}={} is set: {}", name, printable(value), probe.meaning);
    }
  }
  return std::move(read.probes);
}

std::vector<std::pair<std::string, std::string>> backend_settings(const Probes& probes) {
  std::vector<std::pair<std::string, std::string>> settings;
  for (const ProbeInfo& probe : kTable) {
    if (probe.setting.empty()) continue;
    for (const auto& [name, value] : probes.in_force) {
      if (name != probe.name) continue;
      settings.emplace_back(probe.setting,
                            std::visit([&](auto member) { return text_of(probes.*member); }, probe.slot));
    }
  }
  return settings;
}

}  // namespace apr
