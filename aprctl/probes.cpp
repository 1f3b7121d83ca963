// `aprctl probes`: the environment variables that change what the program does, and those in force.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "aprctl/command_line.h"
#include "aprctl/commands.h"
#include "core/probe/probe.h"

namespace apr::ctl {

int probes_main(const Arguments& args) {
  CommandLine line("probes",
                   "Show every environment variable that apr reads, its meaning, and its value in force.",
                   "APR_NO_GRAPH=1 aprctl probes");
  line.options().add_options()("json", boost::program_options::bool_switch(), "print JSON");
  if (!line.parse(args)) return kExitOk;

  const Probes probes = announce_probes();
  const auto in_force = [&](std::string_view name) {
    for (const auto& [key, value] : probes.in_force)
      if (key == name) return value;
    return std::string();
  };
  if (line.flag("json")) {
    nlohmann::ordered_json out = nlohmann::ordered_json::array();
    for (const ProbeInfo& probe : probe_table()) {
      const std::string value = in_force(probe.name);
      out.push_back(
          {{"name", probe.name},
           {"values", probe_values(probe)},
           {"meaning", probe.meaning},
           {"when_unset", probe.when_unset},
           {"in_force", value.empty() ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(value)}});
    }
    fmt::print("{}\n", out.dump(2));
    return kExitOk;
  }
  for (const ProbeInfo& probe : probe_table()) {
    const std::string value = in_force(probe.name);
    fmt::print("{}\n  {}\n  values: {}\n  unset:  {}\n  now:    {}\n", probe.name, probe.meaning,
               probe_values(probe), probe.when_unset, value.empty() ? "unset" : value);
  }
  return kExitOk;
}

}  // namespace apr::ctl
