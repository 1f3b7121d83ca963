#include "core/kernel_cache/kernel_cache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "core/base/error.h"
#include "core/kernel_cache/entry.h"

namespace apr {

namespace fs = std::filesystem;

namespace {

constexpr const char* kDamaged = "damaged";
constexpr const char* kLocks = "locks";
constexpr const char* kNew = "new";

bool is_hex(const std::string& text, size_t length) {
  return text.size() == length && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

// An exclusive flock on a file of its own. The file goes when the lock does: whoever gets a lock on a file that is no
// longer the one at the path tries again.
class KeyLock {
 public:
  enum class Outcome { Held, Busy, Impossible };

  KeyLock() = default;
  KeyLock(const KeyLock&) = delete;
  KeyLock& operator=(const KeyLock&) = delete;
  ~KeyLock() {
    if (fd_ < 0) return;
    ::unlink(path_.c_str());
    ::close(fd_);
  }

  Outcome acquire(const std::string& path, bool wait) {
    path_ = path;
    for (;;) {
      const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
      if (fd < 0) return Outcome::Impossible;
      int result;
      do result = ::flock(fd, LOCK_EX | (wait ? 0 : LOCK_NB));
      while (result != 0 && errno == EINTR);
      if (result != 0) {
        const bool busy = errno == EWOULDBLOCK;
        ::close(fd);
        return busy ? Outcome::Busy : Outcome::Impossible;  // a file system without locks
      }
      struct stat held {
      }, named{};
      if (::fstat(fd, &held) == 0 && ::stat(path.c_str(), &named) == 0 && held.st_ino == named.st_ino &&
          held.st_dev == named.st_dev) {
        fd_ = fd;
        return Outcome::Held;
      }
      ::close(fd);
    }
  }

 private:
  std::string path_;
  int fd_ = -1;
};

// Every entry's key with its folder.
template <typename Visit>
void for_each_entry(const std::string& folder, const Visit& visit) {
  std::error_code code;
  for (fs::directory_iterator outer(folder, code), end; !code && outer != end; outer.increment(code)) {
    if (!is_hex(outer->path().filename().string(), 2)) continue;
    std::error_code inner_code;
    for (fs::directory_iterator inner(outer->path(), inner_code); !inner_code && inner != end;
         inner.increment(inner_code)) {
      const std::string key = inner->path().filename().string();
      if (is_hex(key, 64)) visit(key, inner->path().string());
    }
  }
}

uint64_t folder_bytes(const fs::path& folder) {
  uint64_t bytes = 0;
  std::error_code code;
  for (fs::recursive_directory_iterator it(folder, code), end; !code && it != end; it.increment(code)) {
    std::error_code size_code;
    const uint64_t size = it->is_regular_file(size_code) ? it->file_size(size_code) : 0;
    if (!size_code) bytes += size;
  }
  return bytes;
}

void sort_newest_first(std::vector<CacheEntry>& entries) {
  std::sort(entries.begin(), entries.end(), [](const CacheEntry& a, const CacheEntry& b) {
    return a.used != b.used ? a.used > b.used : a.key < b.key;
  });
}

}  // namespace

KernelCache::KernelCache(Options options) : options_(std::move(options)) {
  if (options_.folder.empty()) {
    writable_ = false;
    return;
  }
  if (options_.folder.front() != '/')
    throw usage_error("the kernel cache's folder must be an absolute path: {}", options_.folder);
}

std::string KernelCache::entry_folder(const std::string& key) const {
  return options_.folder + "/" + key.substr(0, 2) + "/" + key;
}

void KernelCache::say(const std::string& message) const {
  if (options_.say) options_.say(message);
}

void KernelCache::give_up(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  if (!writable_) return;
  writable_ = false;
  say(fmt::format("kernel cache {}: {}; kernels that are built now stay in memory", options_.folder, reason));
}

std::optional<BuiltKernel> KernelCache::read(const std::string& key) {
  if (options_.folder.empty()) return std::nullopt;
  const std::string folder = entry_folder(key);
  std::optional<kernel_cache::ReadEntry> found = kernel_cache::read_entry(folder, key, false);
  if (!found) return std::nullopt;
  if (!found->entry.damage.empty()) {
    quarantine(key, found->entry.damage);
    return std::nullopt;
  }
  // Failing is fine: on a read-only folder nothing is evicted either.
  ::utimensat(AT_FDCWD, (folder + "/" + kernel_cache::kManifest).c_str(), nullptr, 0);
  return std::move(found->kernel);
}

void KernelCache::quarantine(const std::string& key, const std::string& damage) {
  const std::string aside = options_.folder + "/" + kDamaged;
  std::error_code code;
  fs::create_directories(aside, code);
  // One place per key: the newest damage replaces an older one.
  fs::remove_all(aside + "/" + key, code);
  fs::rename(entry_folder(key), aside + "/" + key, code);
  say(fmt::format("kernel cache: entry {} is damaged ({}); {}, and the kernel is built again",
                  key.substr(0, 12), damage,
                  code ? "it could not be set aside (" + code.message() + ")" : "set aside in " + aside));
}

void KernelCache::publish(const std::string& key, const BuiltKernel& kernel) {
  static std::atomic<unsigned> counter{0};
  const std::string fresh = fmt::format("{}/{}/{}.{}.{}", options_.folder, kNew, key, ::getpid(), counter++);
  const std::string target = entry_folder(key);
  std::error_code code;
  try {
    fs::create_directories(fresh, code);
    if (code) throw Error("{}: {}", fresh, code.message());
    kernel_cache::write_entry(fresh, key, kernel, options_.compiler);
    fs::create_directories(fs::path(target).parent_path(), code);
    if (code) throw Error("{}: {}", target, code.message());
    fs::rename(fresh, target, code);
    // Somebody without locks (another host on a shared disk) was first: theirs is as good.
    if (code && !fs::exists(target)) throw Error("{}: {}", target, code.message());
    if (code) fs::remove_all(fresh, code);
  } catch (const Error& e) {
    fs::remove_all(fresh, code);
    give_up(e.what());
    return;
  }
  evict();
}

KernelCache::Result KernelCache::get(const std::string& key, const std::function<BuiltKernel()>& build,
                                     bool wait) {
  if (!is_hex(key, 64)) throw Error("kernel cache: '{}' is not a key", key);
  if (std::optional<BuiltKernel> kernel = read(key)) return {Source::Cached, std::move(*kernel)};
  bool writable;
  {
    const std::lock_guard lock(mutex_);
    writable = writable_;
  }
  if (!writable) return {Source::Built, build()};
  const std::string locks = options_.folder + "/" + kLocks;
  std::error_code code;
  fs::create_directories(locks, code);
  KeyLock lock;
  switch (lock.acquire(locks + "/" + key, wait)) {
    case KeyLock::Outcome::Held:
      break;
    case KeyLock::Outcome::Busy:
      return {Source::Busy, {}};
    case KeyLock::Outcome::Impossible:
      give_up(fmt::format("{}: {}", locks, code ? code.message() : std::strerror(errno)));
      return {Source::Built, build()};
  }
  // Whoever held the lock before may have published it.
  if (std::optional<BuiltKernel> kernel = read(key)) return {Source::Cached, std::move(*kernel)};
  Result result{Source::Built, build()};
  publish(key, result.kernel);
  return result;
}

void KernelCache::evict() {
  if (options_.max_bytes == 0) return;
  KeyLock lock;
  if (lock.acquire(options_.folder + "/" + kLocks + "/evict", false) != KeyLock::Outcome::Held) return;
  std::vector<CacheEntry> entries = list();
  uint64_t total = 0;
  for (const CacheEntry& entry : entries) total += entry.bytes;
  const std::string aside = options_.folder + "/" + kDamaged;
  std::error_code code;
  if (total > options_.max_bytes) fs::remove_all(aside, code);
  // Oldest use first; the newest stays even when it alone is larger than the bound.
  for (size_t i = entries.size(); total > options_.max_bytes && i > 1; --i) {
    total -= entries[i - 1].bytes;
    fs::remove_all(entry_folder(entries[i - 1].key), code);
  }
}

std::vector<CacheEntry> KernelCache::list() const {
  std::vector<CacheEntry> entries;
  for_each_entry(options_.folder, [&](const std::string& key, const std::string& folder) {
    if (std::optional<CacheEntry> entry = kernel_cache::stat_entry(folder, key))
      entries.push_back(std::move(*entry));
  });
  sort_newest_first(entries);
  return entries;
}

std::vector<CacheEntry> KernelCache::verify() const {
  std::vector<CacheEntry> entries;
  for_each_entry(options_.folder, [&](const std::string& key, const std::string& folder) {
    if (auto found = kernel_cache::read_entry(folder, key, true)) entries.push_back(std::move(found->entry));
  });
  sort_newest_first(entries);
  return entries;
}

KernelCache::Cleared KernelCache::clear(bool damaged_only) {
  Cleared cleared{0, 0};
  const auto remove = [&](const fs::path& folder) {
    const uint64_t bytes = folder_bytes(folder);
    std::error_code code;
    if (fs::remove_all(folder, code) > 0 && !code) cleared.entries += 1, cleared.bytes += bytes;
    if (code) throw Error("kernel cache: cannot remove {}: {}", folder.string(), code.message());
  };
  for (const CacheEntry& entry : damaged_only ? verify() : list())
    if (!damaged_only || !entry.damage.empty()) remove(entry_folder(entry.key));
  std::error_code code;
  for (fs::directory_iterator it(options_.folder + "/" + kDamaged, code), end; !code && it != end;
       it.increment(code))
    remove(it->path());
  // What a killed process left half-written: nobody reads it, and nobody else writes there any more.
  if (!damaged_only) fs::remove_all(options_.folder + "/" + kNew, code);
  return cleared;
}

std::string user_cache_folder(const std::string& name) {
  if (const char* xdg = std::getenv("XDG_CACHE_HOME"); xdg != nullptr && xdg[0] == '/')
    return std::string(xdg) + "/apr/" + name;
  if (const char* home = std::getenv("HOME"); home != nullptr && home[0] == '/')
    return std::string(home) + "/.cache/apr/" + name;
  return "";
}

}  // namespace apr
