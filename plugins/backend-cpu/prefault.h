// Weights that lie in a mapped file are read and mapped before the first step.
#pragma once

#include <apr/backend.h>

#include "device.h"
#include "program.h"

namespace apr::cpu {

// On all threads; progress is reported on the caller's. Does nothing for weights that would not fit memory: then pages
// come as they are needed, and throw each other out either way.
void prefault_weights(apr_device& device, const Program& program, apr_progress_fn progress, void* user);

// Bytes of all weights that the program uses.
uint64_t weight_bytes(const Program& program);

}  // namespace apr::cpu
