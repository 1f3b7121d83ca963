// `aprctl probes`: the environment variables that change what the program does, and those in force.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "aprctl/command_line.h"
#include "aprctl/commands.h"
#include "aprctl/probe_report.h"
#include "core/base/format.h"
#include "core/base/wrap.h"
#include "core/probe/probe.h"

namespace apr::ctl {

int probes_main(const Arguments& args) {
  CommandLine line("probes",
                   "Show every environment variable that apr reads, its meaning, and its value in force.",
                   "APR_NO_GRAPH=1 aprctl probes");
  line.options().add_options()("json", boost::program_options::bool_switch(), "print JSON");
  if (!line.parse(args)) return kExitOk;

  const Probes& probes = probes_in_force();
  const auto in_force = [&](std::string_view name) {
    for (const auto& [key, value] : probes.in_force)
      if (key == name) return value;
    return std::string();
  };
  if (line.flag("json")) {
    nlohmann::ordered_json out = {{"probes", probes_json(probes)},
                                  {"unknown", probes.unknown},
                                  {"known", nlohmann::ordered_json::array()}};
    for (const ProbeInfo& probe : probe_table()) {
      const std::string value = in_force(probe.name);
      out["known"].push_back(
          {{"name", probe.name},
           {"values", probe_values(probe)},
           {"meaning", probe.meaning},
           {"when_unset", probe.when_unset},
           {"in_force", value.empty() ? nlohmann::ordered_json(nullptr)
                                      : nlohmann::ordered_json(printable(value, kLongPath))}});
    }
    fmt::print("{}\n", out.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
    return kExitOk;
  }
  for (const ProbeInfo& probe : probe_table()) {
    const std::string value = in_force(probe.name);
    fmt::print("{}\n{}{}{}  now:    {}\n", probe.name, wrapped(std::string(probe.meaning), 2),
               wrapped(fmt::format("values: {}", probe_values(probe)), 2),
               wrapped(fmt::format("unset:  {}", probe.when_unset), 2),
               value.empty() ? "unset" : printable(value, kLongPath));
  }
  return kExitOk;
}

}  // namespace apr::ctl
