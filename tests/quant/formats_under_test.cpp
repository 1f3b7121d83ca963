#include "formats_under_test.h"

#include <dlfcn.h>

#include <filesystem>
#include <stdexcept>

namespace apr::test {
namespace {

std::vector<const apr_quant_format*> all;

}  // namespace

void add_plugin(const std::string& path) {
  void* library = dlopen(std::filesystem::absolute(path).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) throw std::runtime_error(dlerror());
  const auto* plugin = static_cast<const apr_plugin*>(dlsym(library, APR_PLUGIN_SYMBOL));
  if (!plugin) throw std::runtime_error(path + " exports no " APR_PLUGIN_SYMBOL);
  if (plugin->abi_major != APR_ABI_MAJOR) throw std::runtime_error(path + " has another ABI");
  for (uint32_t i = 0; i < plugin->n_formats; ++i) all.push_back(plugin->formats[i]);
}

const std::vector<const apr_quant_format*>& formats() { return all; }

const apr_quant_format* find_format(const std::string& name) {
  for (const auto* f : all)
    if (name == f->name) return f;
  return nullptr;
}

}  // namespace apr::test
