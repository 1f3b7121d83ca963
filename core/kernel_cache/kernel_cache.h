// The cache of compiled kernels on disk, shared by all processes of a user. Needs no GPU: `aprctl cache` uses it alone.
//
// An entry is a folder <folder>/<first two digits>/<key>/ with kernel.cubin, kernel.ptx, kernel.cu (the specialised
// source, for reading and for profilers) and manifest.json (sizes, SHA-256 of each file, when and how it was made). The
// key is the SHA-256 of everything that the compiler saw, so an entry never goes stale: it is right or it is damaged.
//
//  - Published by writing a hidden sibling folder and renaming it: a reader sees a whole entry or none.
//  - Checked on every read; a damaged entry is moved to <folder>/damaged/, said, and built again.
//  - One lock per key among processes (flock, so a killed process leaves none behind): each kernel is compiled once.
//  - A folder that cannot be written, or a full disk, means that kernels live in memory only; that is said once.
//  - Bounded in size: the entries that were used longest ago go first. Use is the manifest's modification time.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace apr {

constexpr uint64_t kDefaultCacheBytes = 512ull << 20;

// What a compiler made of one specialised source.
struct BuiltKernel {
  std::string cubin;  // empty for a kernel that the driver compiles from PTX
  std::string ptx;
  std::string source;
  std::string summary;  // one line for people: "gemv_int q4_k n=3584 k=3584 sm_90a"
};

struct CacheEntry {
  std::string key;  // 64 hex digits
  std::string summary;
  std::string compiler;  // "NVRTC 13.0"
  uint64_t bytes;        // of all its files
  int64_t created;       // seconds since 1970
  int64_t used;          // seconds since 1970, last
  std::string damage;    // from verify: what is wrong, "" when nothing is
};

class KernelCache {
 public:
  struct Options {
    std::string folder;                           // absolute; made when it is missing. "" = memory only
    uint64_t max_bytes = kDefaultCacheBytes;      // 0 = no bound
    std::string compiler;                         // recorded in manifests
    std::function<void(const std::string&)> say;  // warnings; may be called from any thread [nullable]
  };

  explicit KernelCache(Options options);

  enum class Source { Cached, Built, Busy };
  struct Result {
    Source source;
    BuiltKernel kernel;  // of a Cached one only cubin and summary are read, and ptx where there is no cubin
  };

  // The entry of a key, or what `build` returns, published. With wait = false, a key that another process or thread is
  // building gives Busy at once, so that the caller can go on with another one. Any number of threads.
  // Exceptions of `build` pass through and leave nothing behind.
  Result get(const std::string& key, const std::function<BuiltKernel()>& build, bool wait);

  // Everything that follows reads the folder; entries that vanish meanwhile are left out.
  std::vector<CacheEntry> list() const;    // newest use first
  std::vector<CacheEntry> verify() const;  // the same, with every file's checksum compared
  struct Cleared {
    uint64_t entries;
    uint64_t bytes;
  };
  // Removes all entries (also damaged ones), or with damaged_only those that verify finds damaged and the quarantine.
  Cleared clear(bool damaged_only = false);

  const std::string& folder() const { return options_.folder; }

 private:
  std::optional<BuiltKernel> read(const std::string& key);
  void publish(const std::string& key, const BuiltKernel& kernel);
  void quarantine(const std::string& key, const std::string& damage);
  void evict();
  void give_up(const std::string& reason);
  void say(const std::string& message) const;
  std::string entry_folder(const std::string& key) const;

  Options options_;
  std::mutex mutex_;  // guards writable_
  bool writable_ = true;
};

// $XDG_CACHE_HOME/apr or ~/.cache/apr, with `name` appended; "" when there is no home.
std::string user_cache_folder(const std::string& name);

}  // namespace apr
