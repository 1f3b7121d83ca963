// The warm-up of 8-bit floats, a step of loading: every block is read once and judged before a device gets it. One NaN code
// or a damaged scale makes all that follows NaN, without a word about where it came from; and a reading by all threads
// leaves the pages in memory for the backend, which reads them next.
#pragma once

#include <apr/plan.h>

#include <cstdint>

#include "core/runtime/session.h"

namespace apr {

struct Fp8WarmUp {
  uint32_t tensors = 0;  // of 8-bit floats, each stored one once
  uint64_t bytes = 0;    // of these
  bool skipped = false;  // they were counted, and not read
  double seconds = 0;
};

// Throws apr::Error that names the tensor, its row and block. progress is called on this thread.
Fp8WarmUp warm_up_fp8(const apr_plan& plan, bool skip, const ProgressFn& progress);

}  // namespace apr
