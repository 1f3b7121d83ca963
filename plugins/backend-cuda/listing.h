// Kernels for people: the templates as data, and the code of a chosen one with what its compiler says of it.
#pragma once

#include <optional>
#include <string>

#include "apr/backend.h"
#include "plugins/backend-cuda/session.h"

namespace apr::cuda {

// Calls fn for each template of a folder.
void list_templates(const Registry& registry, apr_kernel_template_fn fn, void* user);

// A device that kernels can be decided and compiled for without there being one: "sm_90a". Throws
// Failure(APR_INVALID) with those that are known.
Target paper_target(const std::string& arch, const std::vector<int>& supported);

struct KernelCode {
  std::string function, isa, source, assembly, compiler, key;
  int32_t registers = -1, shared_bytes = -1, spill_bytes = -1, threads = -1, ctas = -1;
  apr_kernel_code info() const;  // points into this
};

// Compiles the kernel once more, with the compiler's report. Generic kernels have no source here. rows: of a
// launch whose grid depends on them.
KernelCode code_of(const Workshop& workshop, const Explained& entry);

}  // namespace apr::cuda
