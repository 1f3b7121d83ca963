// Kernels that were compiled to PTX when the program was built, for shapes that are known at run time (ptx-templates/generic).
// They serve where NVRTC is missing: right, and slower by far than specialised ones.
#pragma once

#include <string>

#include "plugins/backend-cuda/jit.h"
#include "plugins/backend-cuda/program.h"
#include "ptx-templates/generic/shape.h"

namespace apr::cuda {

// What the generic kernels' source sees, and what the launcher was compiled with: kernels of another interface are refused.
std::string generic_interface();

// The name of the file that serves a launch: "linear.q4_k", "attention".
std::string generic_name(const KernelSpec& spec);
GenericShape generic_shape(const KernelSpec& spec);

// A program for generic kernels: one kernel per plan operation, one matrix per linear, floats throughout.
// They read their number of rows from the device, so that m = 1 and any number share them.
Program lower_generic(const apr_plan& plan, uint32_t m, bool head, uint32_t n_top = 0);

// <data_dir>/ptx-generic, or relative to the templates' folder. Not necessarily there: load_prebuilt tells.
std::string prebuilt_folder(const std::string& template_folder);

// Throws Failure(APR_UNSUPPORTED) when there is no such kernel, naming the format that lacks it, and apr::Error for one
// of another interface.
KernelImage load_prebuilt(const std::string& folder, const KernelSpec& spec);

}  // namespace apr::cuda
