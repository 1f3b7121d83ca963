// The tokens with the largest logits.
#pragma once

#include <apr/backend.h>

#include <cstdint>

namespace apr::cpu {

// best[k] as in apr_step_output.top; k <= n. has_nan: the row is known to have one.
void find_candidates(const float* logits, uint32_t n, bool has_nan, uint32_t k, apr_candidate* best);

}  // namespace apr::cpu
