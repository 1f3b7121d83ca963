#include "core/plugin/catalog.h"

#include <algorithm>
#include <boost/dll/runtime_symbol_info.hpp>
#include <cstdlib>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/base/log.h"
#include "core/plugin/library.h"
#include "core/plugin/trust.h"

namespace apr {

namespace fs = std::filesystem;

namespace {

// ($XDG_DATA_HOME or ~/.local/share); empty when neither is set. A relative XDG_DATA_HOME is ignored, as the
// XDG base directory specification demands.
fs::path user_data_folder() {
  const char* const data_home = std::getenv("XDG_DATA_HOME");
  if (data_home && data_home[0] == '/') return data_home;
  const char* const home = std::getenv("HOME");
  return home && home[0] == '/' ? fs::path(home) / ".local/share" : fs::path();
}

// Folder names in a fixed order, so that lists and errors are the same on every machine.
std::vector<fs::path> sub_folders(const fs::path& folder, std::error_code& failure) {
  std::vector<fs::path> result;
  for (fs::directory_iterator it(folder, failure), end; !failure && it != end; it.increment(failure)) {
    std::error_code ignored;
    if (it->is_directory(ignored)) result.push_back(it->path());
  }
  std::sort(result.begin(), result.end());
  return result;
}

std::string path_list(const std::vector<SearchPath>& paths) {
  std::string text;
  for (const SearchPath& path : paths) {
    text += fmt::format("\n    {} ({}{})", path.path.native(), path.origin,
                        path.exists ? "" : "; does not exist");
  }
  return text;
}

bool mentions(const std::vector<std::string>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

std::vector<SearchPath> plugin_search_paths(const std::vector<fs::path>& command_line,
                                            const std::vector<fs::path>& environment) {
  std::vector<SearchPath> paths;
  const auto add = [&paths](const fs::path& path, const char* origin, bool required) {
    paths.push_back({fs::absolute(path).lexically_normal(), origin, required});
  };
  for (const fs::path& path : command_line) {
    if (path.empty()) throw usage_error("--plugin-path is empty; give a folder");
    add(path, "--plugin-path", true);
  }
  for (const fs::path& path : environment) {
    if (!path.is_absolute()) {
      throw usage_error(
          "APR_PLUGIN_PATH: '{}' is not an absolute path; plugins are never searched relative to the working "
          "directory",
          printable(path.native()));
    }
    add(path, "APR_PLUGIN_PATH", true);
  }
  if (const fs::path data = user_data_folder(); !data.empty()) add(data / "apr/plugins", "user data", false);
  const fs::path program = boost::dll::program_location().parent_path();
  for (const char* relative : {"plugins", "../plugins", "../lib/apr/plugins"})
    add(program / relative, "installation", false);
  return paths;
}

Catalog::Catalog(std::vector<SearchPath> paths) : searched_(std::move(paths)) {
  for (SearchPath& path : searched_) scan(path);
  for (const RefusedPlugin& refused : refused_) log_warning("plugin refused: {}", refused.reason);
}

void Catalog::scan(SearchPath& path) {
  std::error_code failure;
  path.exists = fs::is_directory(path.path, failure);
  if (!path.exists) {
    if (!path.required) return;
    throw usage_error("{}: {} is not a folder{}", path.origin, printable(path.path.native(), kLongPath),
                      failure ? fmt::format(" ({})", failure.message()) : "");
  }
  if (const auto reason = distrust(path.path)) {
    refused_.push_back({path.path, *reason, {}});
    return;
  }
  if (fs::exists(path.path / kManifestName, failure)) return add_folder(path.path, path);
  for (const fs::path& folder : sub_folders(path.path, failure)) {
    std::error_code ignored;
    if (fs::exists(folder / kManifestName, ignored)) add_folder(folder, path);
  }
  if (failure)
    refused_.push_back({path.path, fmt::format("{}: {}", path.path.native(), failure.message()), {}});
}

void Catalog::add_folder(const fs::path& folder, const SearchPath& path) {
  const fs::path file = folder / kManifestName;
  for (const fs::path& part : {folder, file}) {
    if (const auto reason = distrust(part)) {
      refused_.push_back({part, *reason, {}});
      return;
    }
  }
  Manifest manifest;
  try {
    manifest = read_manifest(file);
  } catch (const Error& error) {
    refused_.push_back({file, error.what(), {}});
    return;
  }
  std::error_code failure;
  const fs::path real = fs::canonical(manifest.library, failure);
  if (failure) {
    refused_.push_back(
        {manifest.library,
         fmt::format("{}: the library that {} names is not there ({}); correct `file`, or install it again",
                     manifest.library.native(), file.native(), failure.message()),
         manifest.provides});
    return;
  }
  if (const auto reason = distrust(real)) {
    refused_.push_back({real, *reason, manifest.provides});
    return;
  }
  // The same plugin reached by two paths (a link, a path given twice) is one plugin.
  for (const FoundPlugin& known : plugins_) {
    if (known.real_library == real && known.manifest.kind == manifest.kind &&
        known.manifest.name == manifest.name)
      return;
  }
  plugins_.push_back({std::move(manifest), path.origin, real});
}

const apr_plugin& Catalog::open(size_t index) {
  FoundPlugin& plugin = plugins_.at(index);
  if (plugin.table) return *plugin.table;
  // Looked at again: time has passed since the scan.
  for (const fs::path& part : {plugin.manifest.path.parent_path(), plugin.real_library}) {
    if (const auto reason = distrust(part)) throw Error("plugin refused: {}", *reason);
  }
  plugin.table = &open_library(plugin.manifest);
  return *plugin.table;
}

size_t Catalog::provider(PluginKind kind, std::string_view wanted, const std::string& need) const {
  std::vector<size_t> providers;
  for (size_t i = 0; i < plugins_.size(); ++i) {
    if (plugins_[i].manifest.kind == kind && plugins_[i].manifest.provides_name(wanted))
      providers.push_back(i);
  }
  if (providers.size() == 1) return providers[0];
  if (providers.size() > 1) {
    std::string files;
    for (size_t i : providers)
      files += fmt::format("\n    {} ({})", plugins_[i].manifest.library.native(), plugins_[i].origin);
    throw Error("{}, and {} plugins provide it; remove all but one of:{}", need, providers.size(), files);
  }
  std::string known;
  for (const FoundPlugin& plugin : plugins_) {
    if (plugin.manifest.kind != kind) continue;
    for (const std::string& each : plugin.manifest.provides) known += (known.empty() ? "" : ", ") + each;
  }
  std::string text = fmt::format(
      "{}, and no plugin provides it. A {} plugin whose {} lists provides = [\"{}\"] would; found "
      "are: {}. Searched:{}",
      need, name(kind), kManifestName, wanted, known.empty() ? "none" : known, path_list(searched_));
  for (const RefusedPlugin& refused : refused_) {
    // A folder that could not be read might have held it, so it is named too.
    if (refused.provides.empty() || mentions(refused.provides, wanted))
      text += fmt::format("\n  refused: {}", refused.reason);
  }
  throw Error(text);
}

const apr_quant_format& Catalog::format(WeightQuantType type, std::string_view format_name,
                                        std::string_view for_tensor) {
  if (type != WeightQuantType::Extension && format_name != name(type)) {
    throw Error("internal error: format '{}' was asked for as {}", printable(format_name), name(type));
  }
  if (const auto known = formats_.find(format_name); known != formats_.end()) return *known->second;
  const std::string need = for_tensor.empty() ? fmt::format("format '{}' is needed", printable(format_name))
                                              : fmt::format("tensor '{}' has format '{}'",
                                                            printable(for_tensor), printable(format_name));
  const apr_plugin& plugin = open(provider(PluginKind::Quant, format_name, need));
  for (uint32_t i = 0; i < plugin.n_formats; ++i) {
    if (format_name == plugin.formats[i]->name) {
      return *formats_.emplace(format_name, plugin.formats[i]).first->second;
    }
  }
  throw Error("internal error: {} passed the checks without '{}'", plugin.name, format_name);
}

const apr_quant_format& Catalog::format(std::string_view format_name) {
  if (const std::optional<WeightQuantType> type = parse_qtype(format_name))
    return format(*type, name(*type), "");
  return format(WeightQuantType::Extension, format_name, "");
}

const apr_backend& Catalog::backend(std::string_view wanted) {
  const apr_plugin& plugin =
      open(provider(PluginKind::Backend, wanted, fmt::format("backend '{}' is needed", printable(wanted))));
  for (uint32_t i = 0; i < plugin.n_backends; ++i) {
    if (wanted == plugin.backends[i]->name) return *plugin.backends[i];
  }
  throw Error("internal error: {} passed the checks without '{}'", plugin.name, wanted);
}

}  // namespace apr
