#pragma once

#include <apr/backend.h>

namespace apr::cpu {

// As apr_backend.diagnose.
void diagnose(apr_finding_fn fn, void* user);

}  // namespace apr::cpu
