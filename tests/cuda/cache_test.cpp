// The kernel cache on disk: published whole, checked on every read, built once among processes, bounded, and no obstacle
// where it cannot be written.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "core/base/error.h"
#include "core/base/sha256.h"
#include "core/kernel_cache/kernel_cache.h"

namespace fs = std::filesystem;
using namespace apr;

namespace {

struct TempFolder {
  TempFolder() {
    char name[] = "/tmp/apr_cache_XXXXXX";
    path = ::mkdtemp(name);
  }
  ~TempFolder() {
    std::error_code code;
    fs::permissions(path, fs::perms::owner_all, code);
    fs::remove_all(path, code);
  }
  std::string path;
};

std::string key(int i) { return sha256_hex("key " + std::to_string(i)); }
BuiltKernel kernel(int i, size_t bytes = 100) {
  return {std::string(bytes, static_cast<char>('a' + i % 26)), "ptx", "source",
          "kernel " + std::to_string(i)};
}

struct Probe {
  explicit Probe(const std::string& folder, uint64_t max_bytes = 0)
      : cache({folder, max_bytes, "test 1.0", [this](const std::string& m) { said.push_back(m); }}) {}
  KernelCache::Result get(int i, size_t bytes = 100) {
    return cache.get(
        key(i), [&] { return ++built, kernel(i, bytes); }, true);
  }
  std::vector<std::string> said;
  KernelCache cache;
  int built = 0;
};

std::string entry(const std::string& folder, int i) {
  return folder + "/" + key(i).substr(0, 2) + "/" + key(i);
}

void overwrite(const std::string& file, const std::string& text) {
  std::ofstream(file, std::ios::binary | std::ios::trunc) << text;
}
std::string read(const std::string& file) {
  std::ostringstream text;
  text << std::ifstream(file, std::ios::binary).rdbuf();
  return text.str();
}

}  // namespace

TEST_CASE("a kernel is built once and found again, also by another cache on the same folder") {
  const TempFolder folder;
  Probe one(folder.path);
  CHECK(one.get(1).source == KernelCache::Source::Built);
  const KernelCache::Result again = one.get(1);
  CHECK(again.source == KernelCache::Source::Cached);
  CHECK(again.kernel.cubin == kernel(1).cubin);
  CHECK(again.kernel.summary == "kernel 1");
  Probe two(folder.path);
  CHECK(two.get(1).source == KernelCache::Source::Cached);
  CHECK(one.built + two.built == 1);
  CHECK(read(entry(folder.path, 1) + "/kernel.cu") == "source");
  CHECK(read(entry(folder.path, 1) + "/kernel.ptx") == "ptx");
  CHECK(fs::is_empty(folder.path + "/locks"));
  CHECK(fs::is_empty(folder.path + "/new"));
  CHECK_THROWS_WITH_AS(one.cache.get(
                           "../../etc/passwd", [] { return BuiltKernel{}; }, true),
                       "kernel cache: '../../etc/passwd' is not a key", Error);
  CHECK_THROWS_AS(KernelCache({"relative", 0, "", {}}), Error);
}

TEST_CASE("a kernel without machine code keeps its PTX") {
  const TempFolder folder;
  Probe one(folder.path);
  one.cache.get(
      key(1),
      [] {
        return BuiltKernel{"", "ptx text", "source", ""};
      },
      true);
  CHECK(one.get(1).kernel.ptx == "ptx text");
}

TEST_CASE("damage of every kind is noticed, said, set aside and repaired") {
  using Damage = void (*)(const std::string&);
  const std::vector<Damage> damages = {
      [](const std::string& e) { overwrite(e + "/kernel.cubin", "rubbish"); },
      [](const std::string& e) { overwrite(e + "/kernel.cubin", std::string(100, 'x')); },  // the right size
      [](const std::string& e) { overwrite(e + "/kernel.cubin", read(e + "/kernel.cubin").substr(0, 40)); },
      [](const std::string& e) { overwrite(e + "/kernel.cubin", ""); },
      [](const std::string& e) { fs::remove(e + "/kernel.cubin"); },
      [](const std::string& e) { overwrite(e + "/manifest.json", ""); },
      [](const std::string& e) { overwrite(e + "/manifest.json", "[1, 2"); },
      [](const std::string& e) { overwrite(e + "/manifest.json", "{\"files\": 3}"); },
      [](const std::string& e) {
        overwrite(e + "/manifest.json", read(e + "/manifest.json").replace(20, 1, "z"));
      },
      [](const std::string& e) { fs::remove(e + "/manifest.json"); },
      [](const std::string& e) { fs::remove_all(e), overwrite(e, "a file where a folder was"); },
  };
  for (size_t d = 0; d < damages.size(); ++d) {
    CAPTURE(d);
    const TempFolder folder;
    Probe one(folder.path);
    one.get(1);
    damages[d](entry(folder.path, 1));
    Probe two(folder.path);
    const KernelCache::Result result = two.get(1);
    CHECK(result.source == KernelCache::Source::Built);
    CHECK(result.kernel.cubin == kernel(1).cubin);
    REQUIRE(two.said.size() == 1);
    CHECK(two.said[0].find("is damaged") != std::string::npos);
    CHECK(two.said[0].find("set aside in " + folder.path + "/damaged") != std::string::npos);
    CHECK(two.get(1).source == KernelCache::Source::Cached);
    CHECK(fs::exists(folder.path + "/damaged/" + key(1)));
  }
}

TEST_CASE("verify names what is damaged, clear removes it") {
  const TempFolder folder;
  Probe one(folder.path);
  for (int i = 0; i < 4; ++i) one.get(i);
  CHECK(one.cache.list().size() == 4);
  overwrite(entry(folder.path, 2) + "/kernel.ptx", "other");
  size_t damaged = 0;
  for (const CacheEntry& e : one.cache.verify()) {
    if (e.damage.empty()) continue;
    ++damaged;
    CHECK(e.key == key(2));
    CHECK(e.damage == "kernel.ptx has 5 bytes instead of 3");
  }
  CHECK(damaged == 1);
  CHECK(one.cache.clear(true).entries == 1);
  CHECK(one.cache.list().size() == 3);
  const KernelCache::Cleared cleared = one.cache.clear();
  CHECK(cleared.entries == 3);
  CHECK(cleared.bytes > 300);
  CHECK(one.cache.list().empty());
  CHECK(one.get(1).source == KernelCache::Source::Built);
}

TEST_CASE("a listing tells what made an entry and when it was used") {
  const TempFolder folder;
  Probe one(folder.path);
  one.get(1), one.get(2);
  const timespec old[2] = {{1000, 0}, {1000, 0}};
  ::utimensat(AT_FDCWD, (entry(folder.path, 2) + "/manifest.json").c_str(), old, 0);
  const auto entries = one.cache.list();
  REQUIRE(entries.size() == 2);
  CHECK(entries[0].summary == "kernel 1");
  CHECK(entries[1].used == 1000);
  CHECK(entries[1].compiler == "test 1.0");
  CHECK(entries[1].bytes > 109);
  CHECK(entries[1].created > 1000000000);
  one.get(2);  // a use
  CHECK(one.cache.list()[1].used > 1000);
}

TEST_CASE("over its bound the cache forgets what was used longest ago") {
  const TempFolder folder;
  Probe one(folder.path, 10000);
  for (int i = 0; i < 4; ++i) {
    one.get(i, 2000);
    const timespec when[2] = {{1000 + i, 0}, {1000 + i, 0}};
    ::utimensat(AT_FDCWD, (entry(folder.path, i) + "/manifest.json").c_str(), when, 0);
  }
  one.get(0, 2000);  // used again: the second is now the oldest
  one.get(4, 2000);
  CHECK_FALSE(fs::exists(entry(folder.path, 1)));
  CHECK(fs::exists(entry(folder.path, 0)));
  CHECK(fs::exists(entry(folder.path, 4)));
  uint64_t bytes = 0;
  for (const CacheEntry& e : one.cache.list()) bytes += e.bytes;
  CHECK(bytes <= 10000);
  one.get(9, 50000);  // larger than the bound: kept, alone
  CHECK(one.cache.list().size() == 1);
  CHECK(one.get(9).source == KernelCache::Source::Cached);
}

TEST_CASE("a folder that cannot be written: kernels stay in memory, said once; what is there is used") {
  const TempFolder folder;
  {
    Probe writer(folder.path);
    writer.get(1);
  }
  // Root ignores permission bits, so the unwritable place is one that cannot be a folder.
  const std::string blocked = folder.path + "/file";
  overwrite(blocked, "x");
  Probe none(blocked + "/cache");
  CHECK(none.get(1).source == KernelCache::Source::Built);
  CHECK(none.get(1).source == KernelCache::Source::Built);
  CHECK(none.get(2).source == KernelCache::Source::Built);
  REQUIRE(none.said.size() == 1);
  CHECK(none.said[0].find("kernels that are built now stay in memory") != std::string::npos);
  CHECK(none.cache.list().empty());

  // Readable entries, but the places for locks and new entries are blocked.
  fs::remove_all(folder.path + "/locks");
  overwrite(folder.path + "/locks", "x");
  Probe reader(folder.path);
  CHECK(reader.get(1).source == KernelCache::Source::Cached);
  CHECK(reader.said.empty());
  CHECK(reader.get(2).source == KernelCache::Source::Built);
  CHECK(reader.said.size() == 1);

  Probe memory("");
  CHECK(memory.get(1).source == KernelCache::Source::Built);
  CHECK(memory.said.empty());
}

TEST_CASE("a full disk leaves no half entry") {
  // /dev/full cannot hold a folder; a write that fails is made by a source that is a directory in the entry's way.
  const TempFolder folder;
  fs::create_directories(folder.path + "/" + key(1).substr(0, 2));
  fs::create_directories(folder.path + "/new");
  overwrite(folder.path + "/" + key(2).substr(0, 2), "not a folder");
  Probe one(folder.path);
  CHECK(one.get(2).source == KernelCache::Source::Built);
  REQUIRE(one.said.size() == 1);
  CHECK(fs::is_empty(folder.path + "/new"));
}

TEST_CASE("a build that fails leaves nothing behind and does not lock others out") {
  const TempFolder folder;
  Probe one(folder.path);
  CHECK_THROWS_WITH_AS(one.cache.get(
                           key(1), []() -> BuiltKernel { throw Error("{}", "no"); }, true),
                       "no", Error);
  CHECK(one.cache.list().empty());
  CHECK(one.get(1).source == KernelCache::Source::Built);
}

TEST_CASE(
    "threads of one process do not build the same kernel twice; without waiting they are told that it is "
    "busy") {
  const TempFolder folder;
  KernelCache cache({folder.path, 0, "test", {}});
  std::atomic<int> built{0}, busy{0};
  std::atomic<bool> go{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&, t] {
      while (!go) std::this_thread::yield();
      const auto build = [&] {
        ++built;
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        return kernel(1);
      };
      if (cache.get(key(1), build, t % 2 == 0).source == KernelCache::Source::Busy) ++busy;
    });
  go = true;
  for (std::thread& t : threads) t.join();
  CHECK(built == 1);
  CHECK(busy <= 4);
}

TEST_CASE("eight processes that start together compile each kernel once") {
  const TempFolder folder;
  constexpr int kProcesses = 8, kKernels = 12;
  const std::string log = folder.path + "/built";
  std::vector<pid_t> children;
  for (int p = 0; p < kProcesses; ++p) {
    const pid_t child = ::fork();
    if (child == 0) {
      int status = 0;
      try {
        KernelCache cache({folder.path + "/cache", 0, "test", {}});
        for (int i = 0; i < kKernels; ++i) {
          const auto build = [&] {
            ::usleep(20000);
            const int fd = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
            if (::write(fd, "x", 1) != 1) status = 2;
            ::close(fd);
            return kernel(i);
          };
          if (cache.get(key(i), build, true).kernel.cubin != kernel(i).cubin) status = 1;
        }
      } catch (...) {
        status = 3;
      }
      ::_exit(status);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = -1;
    ::waitpid(child, &status, 0);
    CHECK(status == 0);
  }
  CHECK(read(log).size() == kKernels);
}

TEST_CASE("a process that is killed while it builds does not block the next one") {
  const TempFolder folder;
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    KernelCache cache({folder.path, 0, "test", {}});
    cache.get(
        key(1),
        [&]() -> BuiltKernel {
          if (::write(ready[1], "x", 1) != 1) ::_exit(1);
          ::pause();
          return {};
        },
        true);
    ::_exit(0);
  }
  char byte;
  REQUIRE(::read(ready[0], &byte, 1) == 1);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ::close(ready[0]), ::close(ready[1]);
  Probe one(folder.path);
  CHECK(one.get(1).source == KernelCache::Source::Built);
  CHECK(one.get(1).source == KernelCache::Source::Cached);
}
