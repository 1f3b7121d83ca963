#include "tests/cuda/support/formats.h"

#include <algorithm>
#include <boost/dll/shared_library.hpp>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>

#include "apr/abi.h"

namespace apr::test {

std::string plugin_folder() {
  const char* other = std::getenv("APR_TEST_PLUGINS");
  return other == nullptr ? APR_TEST_PLUGINS : other;
}

std::string data_folder() {
  const std::string built = plugin_folder() + "/..", installed = plugin_folder() + "/../../../share/apr";
  return std::filesystem::is_directory(installed + "/ptx-templates") ? installed : built;
}

const std::vector<const apr_quant_format*>& formats() {
  static const std::vector<const apr_quant_format*> all = [] {
    static std::vector<boost::dll::shared_library> libraries;
    std::vector<const apr_quant_format*> found;
    for (const auto& folder : std::filesystem::directory_iterator(plugin_folder())) {
      const std::string name = folder.path().filename().string();
      const std::filesystem::path file = folder.path() / ("libapr-" + name + ".so");
      if (!name.starts_with("quant-") || !std::filesystem::exists(file)) continue;
      libraries.emplace_back(file.string());
      const auto& plugin = libraries.back().get<const apr_plugin>(APR_PLUGIN_SYMBOL);
      found.insert(found.end(), plugin.formats, plugin.formats + plugin.n_formats);
    }
    std::sort(found.begin(), found.end(),
              [](const auto* a, const auto* b) { return std::string(a->name) < b->name; });
    return found;
  }();
  return all;
}

const apr_quant_format& format(const std::string& name) {
  for (const apr_quant_format* f : formats())
    if (name == f->name) return *f;
  throw std::runtime_error("no built plugin has format " + name);
}

}  // namespace apr::test
