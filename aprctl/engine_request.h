// What the command line asks for, of a model that is known already: commands with several models go through this.
#pragma once

#include <string>

#include "aprctl/engine.h"

namespace apr::ctl {

// As Engine::request(), which takes the model from the command line too.
EngineRequest engine_request(const CommandLine& line, std::string model);

}  // namespace apr::ctl
