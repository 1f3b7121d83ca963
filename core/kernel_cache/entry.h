// One entry of the kernel cache as files: used by kernel_cache.cpp alone.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/kernel_cache/kernel_cache.h"

namespace apr::kernel_cache {

inline constexpr const char* kManifest = "manifest.json";

// Writes an entry's files into an existing empty folder. Throws apr::Error that names the file and the system's reason.
void write_entry(const std::string& folder, const std::string& key, const BuiltKernel& kernel,
                 const std::string& compiler);

struct ReadEntry {
  CacheEntry entry;  // damage says why the rest is not to be used
  BuiltKernel kernel;
};
// Nothing when there is no such entry. `all` reads and checks every file, otherwise only those that a run needs.
std::optional<ReadEntry> read_entry(const std::string& folder, const std::string& key, bool all);

// What a listing needs: no file but the manifest is read.
std::optional<CacheEntry> stat_entry(const std::string& folder, const std::string& key);

}  // namespace apr::kernel_cache
