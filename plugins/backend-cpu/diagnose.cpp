// The processor as the backend sees it: what `aprctl doctor` tells of it.
#include "diagnose.h"

#include <string>

#include "topology.h"

namespace apr::cpu {

void diagnose(apr_finding_fn fn, void* user) {
  const auto tell = [&](apr_finding_level level, const char* what, const std::string& found,
                        const char* advice) {
    const apr_finding finding = {sizeof(apr_finding), level, what, found.c_str(), advice};
    fn(user, &finding);
  };
  const Topology t = read_topology();
  tell(APR_FINDING_GOOD, "processor",
       t.model + ", " + std::to_string(t.cores) + " cores of " + std::to_string(t.cpus) +
           " logical processors",
       "");
  std::string sets = isa_name(APR_ISA_PORTABLE);
  for (const apr_isa isa : {APR_ISA_AVX2, APR_ISA_AVX512})
    if (isa <= t.isa) sets += std::string(" ") + isa_name(isa);
  tell(t.isa == APR_ISA_PORTABLE ? APR_FINDING_ABSENT : APR_FINDING_GOOD, "instruction sets",
       "kernels for " + sets + (t.features.empty() ? "" : "; " + t.features),
       t.isa == APR_ISA_PORTABLE ? "neither AVX2 nor AVX-512 is usable: everything runs, many times slower"
                                 : "");
  const uint32_t threads = t.default_threads();
  std::string found = std::to_string(threads) + " by default";
  if (t.quota > 0)
    found += "; the control group allows " + std::to_string(t.quota).substr(0, 4) + " processors";
  tell(APR_FINDING_GOOD, "threads", found, "");
}

}  // namespace apr::cpu
