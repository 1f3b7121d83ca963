// What a session says of its kernels, as C++ values, and times of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "aprctl/engine.h"

namespace apr::ctl {

// apr_kernel_info, owned.
struct KernelReport {
  std::string stage, weight, format, layout, kernel, config, reason, op, spec, rule, rejected;
  uint64_t bytes, n, k;
  uint32_t m_min, m_max, launch;
  double microseconds;

  // 1e9 bytes per second, 0 without a time.
  double gbs() const { return microseconds > 0 ? static_cast<double>(bytes) / microseconds * 1e-3 : 0; }
};

struct CodeReport {
  std::string function, isa, source, assembly, compiler, key;
  int32_t registers, shared_bytes, spill_bytes, threads, ctas;  // -1: not known
};

std::vector<KernelReport> kernel_reports(const Session& session);

// The same after decode steps and prompts of a session whose device was opened with time_kernels: medians
// over the steps.
std::vector<KernelReport> timed_kernels(Engine& engine);

// Throws apr::Error for a backend that cannot show code.
CodeReport kernel_code(const Session& session, uint32_t index);

}  // namespace apr::ctl
