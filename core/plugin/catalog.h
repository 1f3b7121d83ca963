// The plugins that this process may use: where they are searched, which were found, which were refused and
// why. Making a catalog reads manifests only; a library is opened when format() or backend() first needs it.
//
// Used by one thread at a time.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "apr/abi.h"
#include "apr/backend.h"
#include "apr/quant.h"
#include "core/dispatch/weight_quant_type.h"
#include "core/plugin/manifest.h"

namespace apr {

// One folder that is searched: it is a plugin itself (has a plugin.toml) or its sub-folders are.
struct SearchPath {
  std::filesystem::path path;  // absolute
  std::string origin;          // "--plugin-path", "APR_PLUGIN_PATH", "user data", "installation"
  bool required;               // named by the user: an error when it does not exist
  bool exists = false;         // filled by the catalog
};

// In the order of the design: what the command line names, what the environment names, the user's data folder
// ($XDG_DATA_HOME or ~/.local/share)/apr/plugins, then the installation relative to the executable:
// <dir>/plugins, <dir>/../plugins (a build tree), <dir>/../lib/apr/plugins. The working directory is never
// searched; a relative command-line path is resolved against it here, a relative one in APR_PLUGIN_PATH is a
// usage error, since an environment outlives the directory that it was set in.
std::vector<SearchPath> plugin_search_paths(const std::vector<std::filesystem::path>& command_line,
                                            const std::vector<std::filesystem::path>& environment);

struct FoundPlugin {
  Manifest manifest;
  std::string origin;                  // of the search path that it was found in
  std::filesystem::path real_library;  // symbolic links resolved: two of the same are one plugin
  const apr_plugin* table = nullptr;   // null: not opened yet
};

struct RefusedPlugin {
  std::filesystem::path path;         // the folder or file that was refused
  std::string reason;                 // one sentence: what is wrong and what to do
  std::vector<std::string> provides;  // what it would have provided, where its manifest could be read
};

class Catalog {
 public:
  // Scans the paths. Throws a usage error when a required path does not exist; whatever is wrong with a
  // single plugin is recorded in refused() and does not stop the others.
  explicit Catalog(std::vector<SearchPath> paths);
  Catalog(const Catalog&) = delete;
  Catalog& operator=(const Catalog&) = delete;

  const std::vector<SearchPath>& searched() const { return searched_; }
  const std::vector<FoundPlugin>& plugins() const { return plugins_; }
  const std::vector<RefusedPlugin>& refused() const { return refused_; }

  // Opens and checks the library (once); index into plugins(). Throws as open_library does.
  const apr_plugin& open(size_t index);

  // The format that decodes `format_name`; for a well-known type that is name(type), for Extension the
  // plugin's own name. for_tensor is named in the error ("" for none). Throws apr::Error: no plugin provides
  // it, two do, or the library is bad.
  const apr_quant_format& format(WeightQuantType type, std::string_view format_name,
                                 std::string_view for_tensor);
  // By name alone, for what a person typed: "Q4_K", "vendor.nf4".
  const apr_quant_format& format(std::string_view format_name);
  const apr_backend& backend(std::string_view name);

 private:
  void scan(SearchPath& path);
  void add_folder(const std::filesystem::path& folder, const SearchPath& path);
  // The one plugin of this kind that provides the name. `need` begins the error: "tensor 'x' has type q4_k".
  size_t provider(PluginKind kind, std::string_view name, const std::string& need) const;

  std::vector<SearchPath> searched_;
  std::vector<FoundPlugin> plugins_;
  std::vector<RefusedPlugin> refused_;
  std::map<std::string, const apr_quant_format*, std::less<>> formats_;  // those that were asked for
};

}  // namespace apr
