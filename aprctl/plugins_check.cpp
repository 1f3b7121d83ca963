// `aprctl plugins check`: the conformance test over one plugin, as a table and a verdict. The plugin runs in a process of
// its own, so that a crash is a result like any other.
#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "aprctl/command_line.h"
#include "aprctl/commands.h"
#include "aprctl/engine.h"
#include "aprctl/installation.h"
#include "aprctl/isolated.h"
#include "aprctl/model_options.h"
#include "aprctl/probe_report.h"
#include "core/base/error.h"
#include "core/base/format.h"
#include "core/base/wrap.h"
#include "core/conformance/conformance.h"

namespace apr::ctl {
namespace {

namespace fs = std::filesystem;
using conformance::Result;
using conformance::Verdict;
using nlohmann::ordered_json;

// A check that says nothing for so long hangs; kernels for a device are compiled within one.
constexpr int kSilenceSeconds = 300;

struct Request {
  Manifest manifest;
  std::vector<std::string> formats;   // those asked for; empty: all
  std::vector<std::string> backends;  // those asked for; empty: all that are found
  conformance::FormatOptions format;
  conformance::DeviceOptions device;
};

// A library, its plugin.toml, or the folder of both.
Manifest manifest_at(const fs::path& given) {
  const fs::path folder = fs::is_directory(given) ? given : given.parent_path();
  const fs::path file = folder / kManifestName;
  if (!fs::exists(file))
    throw Error("{}: no {} there; a plugin is a folder with its library and that file",
                fs::absolute(folder).lexically_normal().string(), kManifestName);
  Manifest manifest = read_manifest(file);
  if (!fs::exists(manifest.library))
    throw Error("{}: says file = \"{}\", which is not there", manifest.path.string(),
                manifest.library.filename().string());
  if (given.extension() == ".so" && !fs::equivalent(given, manifest.library))
    throw Error("{}: the {} beside it names {}", given.string(), kManifestName,
                manifest.library.filename().string());
  return manifest;
}

Manifest find_manifest(const Catalog& catalog, const std::string& target) {
  std::error_code ignored;
  if (target.find('/') != std::string::npos || fs::exists(target, ignored)) {
    if (!fs::exists(target, ignored)) throw Error("{}: no such file or folder", target);
    return manifest_at(target);
  }
  for (const FoundPlugin& plugin : catalog.plugins())
    if (plugin.manifest.name == target || plugin.manifest.provides_name(target)) return plugin.manifest;
  throw Error("no plugin named or providing '{}', and no such file; `aprctl plugins` lists those found",
              target);
}

bool wanted(const std::vector<std::string>& names, std::string_view name) {
  return names.empty() || std::find(names.begin(), names.end(), name) != names.end();
}

// The backends to try a format on: all that are found, or those that were named.
std::vector<const apr_backend*> backends_of(Catalog& catalog, const Request& request) {
  std::vector<const apr_backend*> found;
  for (const FoundPlugin& plugin : catalog.plugins()) {
    if (plugin.manifest.kind != PluginKind::Backend) continue;
    for (const std::string& name : plugin.manifest.provides)
      if (wanted(request.backends, name)) found.push_back(&catalog.backend(name));
  }
  return found;
}

void check_all(Catalog& catalog, const Request& request, conformance::Listener& listener) {
  const apr_plugin* plugin = conformance::check_library(request.manifest, listener);
  if (!plugin) return;
  for (uint32_t i = 0; i < plugin->n_formats; ++i) {
    const apr_quant_format& format = *plugin->formats[i];
    if (!wanted(request.formats, format.name)) continue;
    conformance::check_format(format, request.format, listener);
    for (const apr_backend* backend : backends_of(catalog, request))
      conformance::check_on_device(format, *backend, request.device, listener);
  }
  // A backend is judged by the formats that are found.
  for (uint32_t i = 0; i < plugin->n_backends; ++i)
    for (const FoundPlugin& found : catalog.plugins()) {
      if (found.manifest.kind != PluginKind::Quant) continue;
      for (const std::string& name : found.manifest.provides)
        if (wanted(request.formats, name))
          conformance::check_on_device(catalog.format(name), *plugin->backends[i], request.device, listener);
    }
}

ordered_json to_json(const Result& r) {
  return {{"group", r.group},
          {"check", r.check},
          {"value", r.finding.value},
          {"bound", r.bound},
          {"verdict", conformance::name(r.finding.verdict)},
          {"detail", r.finding.detail},
          {"seconds", r.seconds}};
}

Verdict parse_verdict(const std::string& text) {
  for (const Verdict verdict : {Verdict::Pass, Verdict::Fail, Verdict::NotRun})
    if (conformance::name(verdict) == text) return verdict;
  throw Error("internal error: verdict '{}'", text);
}

Result from_json(const ordered_json& j) {
  return {j["group"],
          j["check"],
          j["bound"],
          {parse_verdict(j["verdict"]), j["value"], j["detail"]},
          j["seconds"]};
}

// In the child: every event as a line.
class Sender : public conformance::Listener {
 public:
  explicit Sender(std::function<void(const std::string&)> send) : send_(std::move(send)) {}
  void begins(const std::string& group, const std::string& check) override {
    send_(ordered_json{{"begins", {{"group", group}, {"check", check}}}}.dump(
        -1, ' ', false, ordered_json::error_handler_t::replace));
  }
  void ends(const Result& result) override {
    send_(
        ordered_json{{"ends", to_json(result)}}.dump(-1, ' ', false, ordered_json::error_handler_t::replace));
  }

 private:
  std::function<void(const std::string&)> send_;
};

// In this process: the results as they come, as a table.
class Table {
 public:
  explicit Table(bool silent) : silent_(silent) {}

  void line(const std::string& text) {
    const ordered_json event = ordered_json::parse(text);
    if (event.contains("begins")) {
      group_ = event["begins"]["group"], check_ = event["begins"]["check"];
    } else {
      add(from_json(event["ends"]));
    }
  }
  void crashed(const std::string& how) {
    add({group_.empty() ? "library" : group_,
         check_.empty() ? "open" : check_,
         "",
         {Verdict::Fail, "crashed",
          fmt::format("the process ended by {} in this check; nothing after it ran", how)},
         0});
  }

  const std::vector<Result>& results() const { return results_; }
  size_t count(Verdict verdict) const {
    return static_cast<size_t>(std::count_if(results_.begin(), results_.end(),
                                             [&](const Result& r) { return r.finding.verdict == verdict; }));
  }

 private:
  void add(const Result& r) {
    if (!silent_) print(r);
    check_.clear();
    results_.push_back(r);
  }
  void print(const Result& r) {
    if (results_.empty() || results_.back().group != r.group)
      fmt::print("\n{:<30} {:<23} {}\n", r.group, "found", "bound");
    const std::string seconds = r.seconds >= 0.05 ? fmt::format("{:.1f}s", r.seconds) : "";
    fmt::print("{}", wrapped(fmt::format("{:<28} {:<23} {:<12} {:>7}{:>5}", r.check, r.finding.value, r.bound,
                                         conformance::name(r.finding.verdict), seconds),
                             2, 31));
    if (!r.finding.detail.empty()) fmt::print("{}", wrapped(r.finding.detail, 6));
    std::fflush(stdout);
  }

  bool silent_;
  std::string group_, check_;
  std::vector<Result> results_;
};

Request request_of(const CommandLine& line, const Catalog& catalog, const Probes& probes) {
  const auto target = line.find<std::string>("plugin");
  if (!target)
    throw usage_error("aprctl plugins check: name a library, a plugin's folder, a plugin or a format");
  Request request{find_manifest(catalog, *target),
                  line.find<std::vector<std::string>>("format").value_or(std::vector<std::string>()),
                  line.find<std::vector<std::string>>("backend").value_or(std::vector<std::string>()),
                  {},
                  {}};
  for (const std::string& name : request.formats)
    if (request.manifest.kind == PluginKind::Quant && !request.manifest.provides_name(name))
      throw usage_error("--format {}: {} provides {}", name, request.manifest.name,
                        joined(request.manifest.provides));
  if (const auto compiler = line.find<std::string>("compiler")) request.format.compiler = *compiler;
  request.device.index = line.get<uint32_t>("device");
  request.device.settings = backend_settings(probes);
  std::erase_if(request.device.settings, [](const auto& setting) { return setting.first == "kernel_cache"; });
  request.device.settings.emplace_back("kernel_cache", kernel_cache_folder(probes));
  request.device.settings.emplace_back("data_dir", data_folder().string());
  return request;
}

// A backend that was asked for by name and could not run is no pass.
bool asked_but_not_run(const Request& request, const std::vector<Result>& results) {
  return !request.backends.empty() && std::any_of(results.begin(), results.end(), [](const Result& r) {
    return r.check == conformance::kDeviceCheck && r.finding.verdict == Verdict::NotRun;
  });
}

}  // namespace

int plugins_check_main(const Arguments& args) {
  CommandLine line(
      "plugins check",
      "The conformance test of a plugin: its library, its formats on this processor, and on the device "
      "of every backend that is found. Exit code 0 when nothing failed, 4 otherwise.",
      "aprctl plugins check ./build/vendor.nf5");
  namespace po = boost::program_options;
  using Names = std::vector<std::string>;
  line.options().add_options()(
      "plugin", po::value<std::string>(),
      "a library, a plugin's folder, or the name of a plugin or format that is found")(
      "format", po::value<Names>()->composing()->value_name("NAME"), "only this format; may be repeated")(
      "backend", po::value<Names>()->composing()->value_name("NAME"),
      "only on this backend, which must then have a device; may be repeated")(
      "device", po::value<uint32_t>()->default_value(0), "which of a backend's devices")(
      "compiler", po::value<std::string>()->value_name("PROGRAM"),
      "C++ compiler for the codec's text; without it $CXX, c++, g++ or clang++")("json", po::bool_switch(),
                                                                                 "print JSON");
  PluginOptions::add(line);
  line.positional("plugin", 1);
  if (!line.parse(args)) return kExitOk;

  const Probes& probes = probes_in_force();
  Catalog catalog(PluginOptions::search_paths(line, probes));
  const Request request = request_of(line, catalog, probes);
  for (const std::string& name : request.backends) catalog.backend(name);  // an unknown one is an error now

  const bool json = line.flag("json");
  if (!json)
    fmt::print("{} {}: {}\n", request.manifest.name, request.manifest.version,
               request.manifest.library.string());
  Table table(json);
  const ChildEnd end = run_isolated(
      [&](const auto& send) {
        Sender sender(send);
        check_all(catalog, request, sender);
      },
      [&](const std::string& text) { table.line(text); }, kSilenceSeconds);
  if (!end.clean) table.crashed(end.how);

  const size_t failed = table.count(Verdict::Fail);
  const bool good = failed == 0 && !asked_but_not_run(request, table.results());
  if (json) {
    ordered_json out = {{"plugin", request.manifest.name},
                        {"version", request.manifest.version},
                        {"library", request.manifest.library.string()},
                        {"provides", request.manifest.provides},
                        {"probes", probes_json(probes)},
                        {"checks", ordered_json::array()},
                        {"passed", table.count(Verdict::Pass)},
                        {"failed", failed},
                        {"not_run", table.count(Verdict::NotRun)},
                        {"verdict", good ? "pass" : "fail"}};
    for (const Result& r : table.results()) out["checks"].push_back(to_json(r));
    fmt::print("{}\n", out.dump(2, ' ', false, ordered_json::error_handler_t::replace));
  } else {
    fmt::print("\n{}: {} passed, {} failed, {} not run\nverdict: {}\n", request.manifest.name,
               table.count(Verdict::Pass), failed, table.count(Verdict::NotRun), good ? "pass" : "FAIL");
  }
  return good ? kExitOk : kExitGate;
}

}  // namespace apr::ctl
