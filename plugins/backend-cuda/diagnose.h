// The backend about its own surroundings: driver, compiler, kernel templates.
#pragma once

#include <apr/backend.h>

#include <functional>
#include <string>

namespace apr::cuda {

using FindingFn = std::function<void(apr_finding_level level, const char* what, const std::string& found,
                                     const std::string& advice)>;

// Opens the driver and the compiler, and no device.
void diagnose(const std::string& data_dir, const FindingFn& tell);

}  // namespace apr::cuda
