// A backend's measurements of candidates for one kernel of a session.
#pragma once

#include <string>
#include <vector>

#include "apr/backend.h"

namespace apr {

// Whether the backend has `measure`; older ones end before it.
bool can_measure(const apr_backend& backend);

// One result per candidate; null: the session's own kernel as it is. A kernel that cannot be run alone gives results with
// that status and reason. Throws apr::Error, with the spec, when measuring itself fails.
std::vector<apr_measurement> measure_candidates(const apr_backend& backend, apr_session* session,
                                                uint32_t index, const std::string& spec, uint32_t repetitions,
                                                const std::vector<const apr_kernel_rule*>& candidates);

}  // namespace apr
