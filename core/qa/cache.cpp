// The gate on the cache of compiled kernels.
#include <fmt/format.h>

#include "core/base/format.h"
#include "core/kernel_cache/kernel_cache.h"
#include "core/qa/gates.h"

namespace apr {

QaResult gate_cache(QaSubject& subject) {
  const apr_session_info info = subject.backend().session->info();
  if (info.kernels_compiled + info.kernels_cached == 0)
    throw NotRunnable(fmt::format("backend {} compiled no kernel for this model",
                                  subject.backend().session->backend().name));
  const std::string& folder = subject.request().kernel_cache;
  if (folder.empty()) throw NotRunnable("kernels are kept in memory only: there is no cache folder");
  KernelCache cache({folder, 0, "", {}});
  QaResult result{QaVerdict::Pass, "damaged kernels", 0.0, 0.0, "", {}};
  const std::vector<CacheEntry> entries = cache.verify();
  uint64_t bytes = 0;
  for (const CacheEntry& entry : entries) {
    bytes += entry.bytes;
    if (!entry.damage.empty())
      result.details.push_back(
          fmt::format("{}: {}: {}", entry.key.substr(0, 12), printable(entry.summary), entry.damage));
  }
  result.value = static_cast<double>(result.details.size());
  if (result.details.empty()) {
    result.text = fmt::format("{} kernels, {}; this load took {} from the cache and compiled {}",
                              entries.size(), human_bytes(bytes), info.kernels_cached, info.kernels_compiled);
  } else {
    result.verdict = QaVerdict::Fail;
    result.text =
        fmt::format("{} of {} kernels in {} are damaged; `aprctl cache clear --damaged` removes them",
                    result.details.size(), entries.size(), folder);
  }
  return result;
}

}  // namespace apr
