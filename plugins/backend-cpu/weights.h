// Where weights lie while steps read them.
#pragma once

#include <apr/backend.h>

#include "device.h"
#include "program.h"

namespace apr::cpu {

// Mapped: used where the caller has them, read and mapped on all threads before the first step; progress is reported on
// the caller's thread. Weights that would not fit memory are not read ahead: their pages come as they are needed, and throw
// each other out either way.
// Copied: copied to memory with large pages, and read from there. Throws Failure APR_NO_MEMORY.
void place_weights(apr_device& device, Program& program, apr_progress_fn progress, void* user);

// Bytes of all weights that the program uses.
uint64_t weight_bytes(const Program& program);

}  // namespace apr::cpu
