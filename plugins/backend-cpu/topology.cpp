#include "topology.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace apr::cpu {
namespace {

std::string read_line(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

#if defined(__x86_64__)
// Registers of a CPUID leaf, zero where the processor has no such leaf.
struct Leaf {
  uint32_t a = 0, b = 0, c = 0, d = 0;
  Leaf(uint32_t leaf, uint32_t sub) { __get_cpuid_count(leaf, sub, &a, &b, &c, &d); }
};

// Register sets that the operating system saves: a processor's AVX is of no use without them.
uint64_t enabled_state() {
  uint32_t low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
}

void read_features(Topology& t) {
  const Leaf one(1, 0), seven(7, 0), seven_one(7, 1);
  const bool saved = one.c >> 27 & 1;
  const uint64_t state = saved ? enabled_state() : 0;
  const bool ymm = (state & 0x6) == 0x6, zmm = (state & 0xe6) == 0xe6;
  struct Feature {
    const char* name;
    bool present;
  };
  const Feature features[] = {{"avx2", ymm && (seven.b >> 5 & 1)},
                              {"fma", ymm && (one.c >> 12 & 1)},
                              {"f16c", ymm && (one.c >> 29 & 1)},
                              {"avx512f", zmm && (seven.b >> 16 & 1)},
                              {"avx512bw", zmm && (seven.b >> 30 & 1)},
                              {"avx512vl", zmm && (seven.b >> 31 & 1)},
                              {"avx512dq", zmm && (seven.b >> 17 & 1)},
                              {"avx512_vnni", zmm && (seven.c >> 11 & 1)},
                              {"avx512_bf16", zmm && (seven_one.a >> 5 & 1)},
                              {"amx_int8", (seven.d >> 25 & 1) != 0}};
  const auto has = [&](const char* name) {
    for (const Feature& f : features)
      if (std::strcmp(f.name, name) == 0) return f.present;
    return false;
  };
  for (const Feature& f : features)
    if (f.present) t.features += (t.features.empty() ? "" : " ") + std::string(f.name);
  t.isa = APR_ISA_PORTABLE;
  if (has("avx2") && has("fma") && has("f16c")) {
    t.isa = APR_ISA_AVX2;
    if (has("avx512f") && has("avx512bw") && has("avx512vl") && has("avx512dq") && has("avx512_vnni"))
      t.isa = APR_ISA_AVX512;
  }
}
#else
void read_features(Topology& t) { t.isa = APR_ISA_PORTABLE; }
#endif

std::string read_model() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    // x86: "model name"; arm has "CPU part" numbers only, and its name, where there is one, in the device tree.
    if (line.rfind("model name", 0) == 0 || line.rfind("Model", 0) == 0) {
      const size_t at = line.find(':');
      if (at != std::string::npos && at + 2 <= line.size())
        return line.substr(line.find_first_not_of(" \t", at + 1));
    }
  }
  return "processor";
}

uint64_t parse_size(const std::string& text) {  // "4096K"
  char* end;
  const uint64_t n = std::strtoull(text.c_str(), &end, 10);
  return *end == 'K' ? n << 10 : *end == 'M' ? n << 20 : n;
}

// The folders of this process's control group, innermost first: limits of all of them hold. `controller` is "" for the
// unified hierarchy.
std::vector<std::string> cgroup_folders(const std::string& controller) {
  std::vector<std::string> folders;
  std::ifstream in("/proc/self/cgroup");
  const std::string root = controller.empty() ? "/sys/fs/cgroup" : "/sys/fs/cgroup/" + controller;
  for (std::string line; std::getline(in, line);) {
    const size_t a = line.find(':'), b = a == std::string::npos ? a : line.find(':', a + 1);
    if (b == std::string::npos) continue;
    std::istringstream names(line.substr(a + 1, b - a - 1));
    std::string name;
    bool found = controller.empty() && b == a + 1;
    while (!controller.empty() && std::getline(names, name, ',')) found = found || name == controller;
    if (!found) continue;
    for (std::string path = line.substr(b + 1); !path.empty() && path != "/"; path.erase(path.rfind('/')))
      folders.push_back(root + path);
    folders.push_back(root);
  }
  return folders;
}

double read_quota() {
  double quota = 0;
  const auto limit = [&](double q) { quota = quota == 0 ? q : std::min(quota, q); };
  for (const std::string& folder : cgroup_folders("")) {
    double time, period;
    if (std::sscanf(read_line(folder + "/cpu.max").c_str(), "%lf %lf", &time, &period) == 2 && period > 0)
      limit(time / period);
  }
  for (const std::string& folder : cgroup_folders("cpu")) {
    const double time = std::atof(read_line(folder + "/cpu.cfs_quota_us").c_str());
    const double period = std::atof(read_line(folder + "/cpu.cfs_period_us").c_str());
    if (time > 0 && period > 0) limit(time / period);
  }
  return quota;
}

}  // namespace

uint32_t Topology::default_threads() const {
  uint32_t n = std::max(cores, 1u);
  if (quota > 0) n = std::min(n, static_cast<uint32_t>(std::max(1.0, std::ceil(quota))));
  return n;
}

Topology read_topology() {
  Topology t{};
  t.model = read_model();
  read_features(t);

  // A mask larger than any machine's, since a short one makes the call fail.
  constexpr uint32_t kMost = 65536;
  cpu_set_t* mask = CPU_ALLOC(kMost);
  const size_t size = CPU_ALLOC_SIZE(kMost);
  std::vector<uint32_t> allowed;
  if (mask && sched_getaffinity(0, size, mask) == 0)
    for (uint32_t c = 0; c < kMost; ++c)
      if (CPU_ISSET_S(c, size, mask)) allowed.push_back(c);
  if (mask) CPU_FREE(mask);
  if (allowed.empty()) {
    const long n = sysconf(_SC_NPROCESSORS_ONLN);
    for (long c = 0; c < n; ++c) allowed.push_back(static_cast<uint32_t>(c));
  }
  t.cpus = static_cast<uint32_t>(allowed.size());

  // Threads of one core name the same list of siblings; a processor without a list is a core of its own.
  std::set<std::string> cores;
  for (const uint32_t c : allowed) {
    const std::string folder = "/sys/devices/system/cpu/cpu" + std::to_string(c);
    const std::string siblings = read_line(folder + "/topology/thread_siblings_list");
    cores.insert(siblings.empty() ? std::to_string(c) : siblings);
  }
  t.cores = static_cast<uint32_t>(cores.size());
  t.quota = read_quota();
  for (int i = 0; i < 8; ++i) {
    const std::string folder =
        "/sys/devices/system/cpu/cpu" + std::to_string(allowed[0]) + "/cache/index" + std::to_string(i);
    t.cache_bytes = std::max(t.cache_bytes, parse_size(read_line(folder + "/size")));
  }
  return t;
}

void apply_memory_limit(const std::string& folder, bool unified, SystemMemory& memory) {
  const auto number = [&](const char* file) {
    return std::strtoull(read_line(folder + "/" + file).c_str(), nullptr, 10);
  };
  const uint64_t most = number(unified ? "memory.max" : "memory.limit_in_bytes"),
                 used = number(unified ? "memory.current" : "memory.usage_in_bytes");
  if (most == 0 || most >= memory.total) return;  // "max", no such file, or no limit in effect
  uint64_t cached = 0;
  std::ifstream in(folder + "/memory.stat");
  std::string key;
  for (uint64_t bytes; in >> key >> bytes;)
    if (key == (unified ? "inactive_file" : "total_inactive_file") ||
        key == (unified ? "active_file" : "total_active_file"))
      cached += bytes;
  const uint64_t held = used - std::min(used, cached);
  memory.total = most;
  memory.available = std::min(memory.available, most - std::min(most, held));
}

SystemMemory read_memory() {
  SystemMemory m{};
  std::ifstream in("/proc/meminfo");
  for (std::string line; std::getline(in, line);) {
    unsigned long long kib;
    if (std::sscanf(line.c_str(), "MemTotal: %llu", &kib) == 1) m.total = kib << 10;
    if (std::sscanf(line.c_str(), "MemAvailable: %llu", &kib) == 1) m.available = kib << 10;
  }
  for (const std::string& folder : cgroup_folders("")) apply_memory_limit(folder, true, m);
  for (const std::string& folder : cgroup_folders("memory")) apply_memory_limit(folder, false, m);
  return m;
}

const char* isa_name(apr_isa isa) {
  switch (isa) {
    case APR_ISA_PORTABLE:
      return "portable";
    case APR_ISA_AVX2:
      return "avx2";
    case APR_ISA_AVX512:
      return "avx512";
  }
  return "unknown";
}

}  // namespace apr::cpu
