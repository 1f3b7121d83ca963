#include "aprctl/probe_report.h"

#include <nlohmann/json.hpp>

#include "core/base/format.h"

namespace apr::ctl {

const Probes& probes_in_force() {
  static const Probes probes = announce_probes();
  return probes;
}

nlohmann::ordered_json probes_json(const Probes& probes) {
  nlohmann::ordered_json out = nlohmann::ordered_json::object();
  for (const auto& [name, value] : probes.in_force) out[name] = printable(value, kLongPath);
  return out;
}

}  // namespace apr::ctl
