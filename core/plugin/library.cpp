#include "core/plugin/library.h"

#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <boost/dll/shared_library.hpp>
#include <cstddef>
#include <deque>
#include <type_traits>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/plugin/check.h"

namespace apr {

namespace {

// Libraries are never closed: formats, backends and their strings are used until the process ends, and
// threads of a backend may outlive every object here. The list is allocated once and stays reachable, so that
// leak checkers agree.
std::deque<boost::dll::shared_library>& kept_libraries() {
  static auto* libraries = new std::deque<boost::dll::shared_library>;
  return *libraries;
}

// The entry as a table, once the symbol table says that it is data, and how many bytes of it there are. A function of that
// name, or an object that is smaller than its own struct_size says, would otherwise be read as pointers.
const apr_plugin& table_at(const std::string& where, const char& entry) {
  Dl_info info{};
  void* extra = nullptr;
  if (dladdr1(&entry, &info, &extra, RTLD_DL_SYMENT) == 0 || !extra) {
    throw Error("{}: the dynamic loader does not know the size of `{}`", where, APR_PLUGIN_SYMBOL);
  }
  const auto& symbol = *static_cast<const ElfW(Sym)*>(extra);
  // The type is the low four bits in both ELF classes.
  if (ELF64_ST_TYPE(symbol.st_info) != STT_OBJECT ||
      reinterpret_cast<uintptr_t>(&entry) % alignof(apr_plugin) != 0) {
    throw Error("{}: `{}` is not data; define it with APR_PLUGIN_ENTRY from apr/abi.h", where,
                APR_PLUGIN_SYMBOL);
  }
  const auto& plugin = reinterpret_cast<const apr_plugin&>(entry);
  if (symbol.st_size < sizeof(plugin.struct_size) || symbol.st_size < plugin.struct_size) {
    throw Error("{}: `{}` has {} bytes, fewer than the {} that its struct_size says", where,
                APR_PLUGIN_SYMBOL, symbol.st_size,
                symbol.st_size < sizeof(plugin.struct_size) ? sizeof(plugin) : plugin.struct_size);
  }
  return plugin;
}

void check_abi(const std::string& where, const char* of, uint32_t major, uint32_t minor) {
  if (major == APR_ABI_MAJOR && minor <= APR_ABI_MINOR) return;
  if (major == APR_ABI_MAJOR) {
    throw Error(
        "{}: {} ABI {}.{}, newer than this program's {}.{}; update apr, or rebuild the plugin against these "
        "headers",
        where, of, major, minor, APR_ABI_MAJOR, APR_ABI_MINOR);
  }
  throw Error(
      "{}: {} ABI {}.{}, this program has {}.{}; rebuild the plugin against this version's include/apr",
      where, of, major, minor, APR_ABI_MAJOR, APR_ABI_MINOR);
}

void check_names(const apr_plugin& plugin, const Manifest& manifest, const std::string& where) {
  check_text(where, "the plugin", "name", plugin.name);
  check_text(where, "the plugin", "version", plugin.version);
  check_text(where, "the plugin", "license", plugin.license);
  if (manifest.name != plugin.name) {
    throw Error("{}: the library calls itself '{}', its manifest {} says '{}'; make them agree", where,
                printable(plugin.name), manifest.path.native(), manifest.name);
  }
  if (manifest.version != plugin.version) {
    throw Error("{}: the library is version '{}', its manifest {} says '{}'; was only one of them updated?",
                where, printable(plugin.version), manifest.path.native(), printable(manifest.version));
  }
}

// The manifest is what the catalog trusts before opening, so the library must hold exactly what it says.
void check_provides(const Manifest& manifest, const std::string& where,
                    const std::vector<std::string>& actual) {
  for (const std::string& promised : manifest.provides) {
    if (std::find(actual.begin(), actual.end(), promised) != actual.end()) continue;
    throw Error("{}: its manifest {} says that it provides '{}', but the library has {}; correct `provides`",
                where, manifest.path.native(), promised,
                actual.empty() ? "nothing of that kind" : fmt::format("only {}", fmt::join(actual, ", ")));
  }
  for (const std::string& held : actual) {
    if (manifest.provides_name(held)) continue;
    throw Error("{}: the library has '{}', which its manifest {} does not list; add it to `provides`", where,
                held, manifest.path.native());
  }
}

template <typename T>
std::vector<std::string> check_members(const std::string& where, const char* what, const T* const* members,
                                       uint32_t count, void (*check)(const T&, const std::string&)) {
  constexpr uint32_t kMost = 256;
  if (count > kMost)
    throw Error("{}: the plugin claims {} {}s; at most {} are allowed", where, count, what, kMost);
  if (count > 0 && !members)
    throw Error("{}: the plugin claims {} {}s, but its list is null", where, count, what);
  std::vector<std::string> names;
  for (uint32_t i = 0; i < count; ++i) {
    if (!members[i]) throw Error("{}: {} {} of {} is null", where, what, i + 1, count);
    check(*members[i], where);
    if (std::find(names.begin(), names.end(), members[i]->name) != names.end()) {
      throw Error("{}: the plugin has two {}s named '{}'", where, what, members[i]->name);
    }
    names.emplace_back(members[i]->name);
  }
  return names;
}

}  // namespace

void check_plugin(const apr_plugin& plugin, const Manifest& manifest, const std::string& where) {
  // The order matters: nothing is read that the size and version have not vouched for.
  if (plugin.struct_size < offsetof(apr_plugin, name)) {
    throw Error("{}: apr_plugin_entry has struct_size {}, too small to hold a version; is it an apr plugin?",
                where, plugin.struct_size);
  }
  check_abi(where, "the library was compiled against", plugin.abi_major, plugin.abi_minor);
  check_struct_size(where, "apr_plugin_entry", "apr_plugin", plugin.struct_size, sizeof(apr_plugin));
  if (manifest.abi_major != plugin.abi_major || manifest.abi_minor != plugin.abi_minor) {
    throw Error("{}: the library was compiled against ABI {}.{}, its manifest {} says {}.{}; make them agree",
                where, plugin.abi_major, plugin.abi_minor, manifest.path.native(), manifest.abi_major,
                manifest.abi_minor);
  }
  check_names(plugin, manifest, where);
  const std::vector<std::string> formats =
      check_members(where, "format", plugin.formats, plugin.n_formats, &check_format);
  const std::vector<std::string> backends =
      check_members(where, "backend", plugin.backends, plugin.n_backends, &check_backend);
  const bool quant = manifest.kind == PluginKind::Quant;
  check_provides(manifest, where, quant ? formats : backends);
  if (!(quant ? backends : formats).empty()) {
    throw Error(
        "{}: the library has formats and backends; its manifest {} can only say kind = \"{}\": make two "
        "plugins",
        where, manifest.path.native(), name(manifest.kind));
  }
}

const apr_plugin& open_library(const Manifest& manifest) {
  const std::string where = manifest.library.native();
  check_abi(manifest.path.native(), "says that the library was compiled against", manifest.abi_major,
            manifest.abi_minor);
  boost::dll::shared_library library;
  try {
    library.load(manifest.library, boost::dll::load_mode::rtld_now | boost::dll::load_mode::rtld_local);
  } catch (const std::exception& error) {
    // Boost's exception carries dlerror()'s text, which names the symbol or the library that is missing.
    throw Error("{}: cannot be opened: {}; is it a shared library for this machine, with all that it links?",
                where, error.what());
  }
  if (!library.has(APR_PLUGIN_SYMBOL)) {
    throw Error("{}: exports no `{}`; define it with APR_PLUGIN_ENTRY from apr/abi.h (and keep it visible)",
                where, APR_PLUGIN_SYMBOL);
  }
  const char& entry = library.get<const char>(APR_PLUGIN_SYMBOL);
  kept_libraries().push_back(std::move(library));
  const apr_plugin& plugin = table_at(where, entry);
  check_plugin(plugin, manifest, where);
  return plugin;
}

}  // namespace apr
