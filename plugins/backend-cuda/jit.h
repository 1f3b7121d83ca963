// Builds the kernels of a model: each from the cache, or compiled, in parallel, before the first token.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/kernel_cache/kernel_cache.h"
#include "plugins/backend-cuda/spec.h"

namespace apr::cuda {

struct KernelImage {
  std::string cubin;  // machine code; empty when the driver compiles the PTX
  std::string ptx;
};

struct JitReport {
  uint32_t compiled = 0;
  uint32_t cached = 0;
  double seconds = 0;  // wall time of build_kernels
};

// Compiles one source; what KernelCache::get asks for when there is no entry. A test passes its own.
using CompileFn = std::function<BuiltKernel(const Specialised&)>;
// The one that uses NVRTC.
CompileFn nvrtc_compiler(const Nvrtc& nvrtc);
std::string compiler_version(const Nvrtc& nvrtc);  // "NVRTC 13.0"

// images[i] belongs to sources[i]; equal sources are built once. `progress` is called on the calling thread with the
// number of kernels done; the work happens on `threads` others. The first failure is thrown after the running ones end.
std::vector<KernelImage> build_kernels(const std::vector<Specialised>& sources, KernelCache& cache,
                                       const CompileFn& compile, const std::string& compiler,
                                       unsigned threads,
                                       const std::function<void(size_t done, size_t total)>& progress,
                                       JitReport& report);

}  // namespace apr::cuda
