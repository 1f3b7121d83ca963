// Probes as commands use them: read from the environment and announced once a process, and recorded in every
// JSON, so that a report tells what its figures were made under.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "core/probe/probe.h"

namespace apr::ctl {

// Of this process. Throws a usage error for a bad value.
const Probes& probes_in_force();

// {"APR_NO_GRAPH": "1"}: those that are set, with their text; {} when none is.
nlohmann::ordered_json probes_json(const Probes& probes);

}  // namespace apr::ctl
