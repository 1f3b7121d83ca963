// What the kernels mean, computed on the host from a specialised source's prelude and its argument struct. With it the fake
// driver runs whole models, so lowering, binding, layouts, batches, graphs and the gate are tested without a GPU; the
// kernels themselves are tested on one.
#pragma once

#include <cstddef>
#include <string>

namespace apr::fake {

// source: what the fake NVRTC was given. args: the kernel's argument struct. Throws std::runtime_error for an operation or
// a codec that it does not know.
void emulate(const std::string& source, const void* args);

// Bytes of the argument struct of a source's kernel.
size_t args_bytes(const std::string& source);

}  // namespace apr::fake
