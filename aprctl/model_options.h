// Options that several commands share, and what they stand for.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "aprctl/command_line.h"
#include "core/plugin/catalog.h"
#include "core/probe/probe.h"

namespace apr::ctl {

// -m/--model, also as the first argument without a name; the shipped model when neither is given.
struct ModelOptions {
  static void add(CommandLine& line);
  // Says on stderr when the shipped model is used.
  static std::string path(const CommandLine& line);
};

// --plugin-path, any number of times.
struct PluginOptions {
  static void add(CommandLine& line);
  static std::vector<SearchPath> search_paths(const CommandLine& line, const Probes& probes);
};

// --profile, else APR_PROFILE, else "default".
struct ProfileOptions {
  static std::string name(const CommandLine& line, const Probes& probes);
  // Where names are looked up: the user's own ($XDG_CONFIG_HOME or ~/.config)/apr/profiles, then the
  // installation's.
  static std::vector<std::string> folders();
};

// How a model is run: --profile, --backend, --device, --threads, --precise, --ctx, --batch, and
// --plugin-path.
struct BackendOptions {
  static void add(CommandLine& line);
  // With another meaning and default of --ctx.
  static void add(CommandLine& line, uint32_t ctx, const char* ctx_meaning);
};

}  // namespace apr::ctl
