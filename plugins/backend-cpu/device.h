// A processor that was opened: its threads, and the kernels that its sessions use.
#pragma once

#include <apr/backend.h>

#include <memory>
#include <string>

#include "kernels/kernels.h"
#include "thread_pool.h"
#include "topology.h"

namespace apr::cpu {
// The backend's own kernels for an instruction set.
const Kernels& kernels_of(apr_isa isa);
}  // namespace apr::cpu

struct apr_device {
  explicit apr_device(const apr_device_options& options);  // throws Failure

  void info(apr_device_info& out) const;
  double measure_bandwidth();
  void log(int level, const char* format, ...) const __attribute__((format(printf, 3, 4)));

  apr::cpu::Topology topology;
  apr_isa isa;  // upper bound for all kernels
  const apr::cpu::Kernels* kernels;
  bool copies_weights = false;  // weights=copied: where no rule says otherwise
  bool time_kernels = false;    // every operation is a phase of its own, so that each is timed by itself
  std::unique_ptr<apr::cpu::ThreadPool> pool;

 private:
  apr_log_fn log_;
  void* log_user_;
};
