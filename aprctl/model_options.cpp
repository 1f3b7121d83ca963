#include "aprctl/model_options.h"

#include <cstdlib>

#include "aprctl/engine.h"
#include "aprctl/installation.h"
#include "core/base/log.h"

namespace apr::ctl {

namespace po = boost::program_options;

void ModelOptions::add(CommandLine& line) {
  line.options().add_options()(
      "model,m", po::value<std::string>()->value_name("FILE"),
      "model file (GGUF) or Hugging Face folder; without it the model that ships with apr");
  line.positional("model", 1);
}

std::string ModelOptions::path(const CommandLine& line) {
  if (const auto given = line.find<std::string>("model")) return *given;
  std::string path = shipped_model();
  log_info("no model given: using the shipped {}", path);
  return path;
}

void PluginOptions::add(CommandLine& line) {
  line.options().add_options()("plugin-path",
                               po::value<std::vector<std::string>>()->composing()->value_name("FOLDER"),
                               "search this folder for plugins first; may be repeated");
}

std::vector<SearchPath> PluginOptions::search_paths(const CommandLine& line, const Probes& probes) {
  const auto given = line.find<std::vector<std::string>>("plugin-path").value_or(std::vector<std::string>());
  return plugin_search_paths({given.begin(), given.end()}, probes.plugin_path);
}

std::string ProfileOptions::name(const CommandLine& line, const Probes& probes) {
  if (const auto given = line.find<std::string>("profile")) return *given;
  return probes.profile ? probes.profile->text : "default";
}

std::vector<std::string> ProfileOptions::folders() {
  std::vector<std::string> folders;
  const char *config = std::getenv("XDG_CONFIG_HOME"), *home = std::getenv("HOME");
  if (config != nullptr && config[0] == '/')
    folders.push_back(std::string(config) + "/apr/profiles");
  else if (home != nullptr && home[0] == '/')
    folders.push_back(std::string(home) + "/.config/apr/profiles");
  folders.push_back((data_folder() / "profiles").string());
  return folders;
}

void BackendOptions::add(CommandLine& line) {
  add(line, 0, "positions of the KV cache, 0: the model's, at most 4096");
}

void BackendOptions::add(CommandLine& line, uint32_t ctx, const char* ctx_meaning) {
  line.options().add_options()("backend", po::value<std::string>()->default_value(kReferenceBackend),
                               "cpu, cuda, or another plugin's")(
      "device", po::value<uint32_t>()->default_value(0), "which of the backend's devices")(
      "threads,t", po::value<uint32_t>()->default_value(0), "worker threads, 0: one per physical core")(
      "profile", po::value<std::string>()->value_name("FILE|NAME"),
      "which kernel serves which tensors; see docs/profiles.md")(
      "precise", po::bool_switch(),
      "float activations instead of 8-bit ones: slower, to judge by; the same as --profile precise")(
      "ctx", po::value<uint32_t>()->default_value(ctx), ctx_meaning)(
      "batch", po::value<uint32_t>()->default_value(512), "most prompt tokens in one step");
  PluginOptions::add(line);
}

}  // namespace apr::ctl
