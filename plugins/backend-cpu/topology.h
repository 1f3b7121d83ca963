// What processor this is and how much of it this process may use.
#pragma once

#include <apr/quant.h>

#include <cstdint>
#include <string>
#include <vector>

namespace apr::cpu {

struct Topology {
  std::string model;     // "Intel(R) Xeon(R) Processor"
  std::string features;  // of those that kernels use or could use: "avx2 fma f16c avx512f ..."
  apr_isa isa;           // the highest set of kernels that the processor and the system support
  uint32_t cpus;         // logical processors in the affinity mask
  uint32_t cores;        // physical cores among them
  double quota;          // processors' worth of time that the control group allows, 0: no limit
  uint64_t cache_bytes;  // of the last-level cache, 0: unknown

  // Physical cores, within the quota: what "0 threads" means.
  uint32_t default_threads() const;
};

Topology read_topology();

struct SystemMemory {
  uint64_t total, available;  // bytes, within the control group's limit
};
SystemMemory read_memory();

// A control group's limit from the files of its folder, of the unified hierarchy or of version 1. The page cache counts as
// used there, and a model that was read once fills it: what of it the system can drop is available all the same.
void apply_memory_limit(const std::string& folder, bool unified, SystemMemory& memory);

const char* isa_name(apr_isa isa);  // "portable", "avx2", "avx512"

}  // namespace apr::cpu
