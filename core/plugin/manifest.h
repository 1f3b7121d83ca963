// plugin.toml, the text beside each plugin library that says what the library provides. It is read without
// opening the library, so that a folder full of plugins costs a few small reads and runs no foreign code.
//
//   name = "quant-q4k"               # required; the library's own name must agree
//   kind = "quant"                   # required; "quant" or "backend"
//   abi = "1.0"                      # required; the ABI that the library was compiled against
//   version = "0.1.0"                # required
//   provides = ["q4_k"]              # required; names of formats or backends, all of them
//   file = "libapr-quant-q4k.so"     # required; a file name in this folder
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace apr {

enum class PluginKind { Quant, Backend };
std::string_view name(PluginKind kind);  // "quant", "backend"

struct Manifest {
  std::filesystem::path path;     // of plugin.toml, absolute
  std::filesystem::path library;  // absolute: the folder of path, then `file`
  std::string name;
  PluginKind kind;
  uint32_t abi_major;
  uint32_t abi_minor;
  std::string version;
  std::vector<std::string> provides;  // at least one, unique

  bool provides_name(std::string_view wanted) const;
};

inline constexpr std::string_view kManifestName = "plugin.toml";

// Throws apr::Error with file and line for text that is no TOML, a missing or unknown key, a wrong type or
// value. Does not ask whether the library exists or whether its ABI fits: Library::open does.
Manifest read_manifest(const std::filesystem::path& path);

// "q4_k", "vendor.nf4", "backend-cpu": 1 to kMaxName characters of a-z 0-9 _ - and single inner dots. Both
// manifests and the libraries' own tables are held to it, since these names go to messages, files and TOML.
inline constexpr size_t kMaxName = 63;
bool is_plugin_word(std::string_view text);

}  // namespace apr
