#include "core/tune/measure.h"

#include <algorithm>
#include <cstddef>

#include "core/base/error.h"

namespace apr {

bool can_measure(const apr_backend& backend) {
  return backend.struct_size >= offsetof(apr_backend, measure) + sizeof backend.measure &&
         backend.measure != nullptr;
}

std::vector<apr_measurement> measure_candidates(const apr_backend& backend, apr_session* session,
                                                uint32_t index, const std::string& spec, uint32_t repetitions,
                                                const std::vector<const apr_kernel_rule*>& candidates) {
  std::vector<apr_measurement> results(candidates.size());
  for (apr_measurement& result : results) result.struct_size = sizeof result;
  apr_error error{};
  error.struct_size = sizeof error;
  const apr_status status = backend.measure(session, index, repetitions, candidates.data(),
                                            static_cast<uint32_t>(candidates.size()), results.data(), &error);
  if (status == APR_OK) return results;
  if (status != APR_UNSUPPORTED)
    throw Error("backend {}: measuring {}: {}", backend.name, spec, error.message);
  for (apr_measurement& result : results)
    result.status = status, std::copy_n(error.message, sizeof result.message - 1, result.message);
  return results;
}

}  // namespace apr
