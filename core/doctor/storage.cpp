#include <fmt/format.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "core/base/atomic_file.h"
#include "core/base/error.h"
#include "core/base/format.h"
#include "core/doctor/doctor.h"
#include "core/hf/open_model.h"
#include "core/kernel_cache/kernel_cache.h"
#include "core/plan/plan.h"
#include "core/runtime/session.h"

namespace apr {

namespace fs = std::filesystem;

namespace {

// The nearest folder upwards that exists: a cache is made when it is first needed.
fs::path existing(fs::path folder) {
  std::error_code failure;
  while (!fs::exists(folder, failure) && folder.has_parent_path() && folder != folder.parent_path())
    folder = folder.parent_path();
  return folder;
}

}  // namespace

void examine_cache(const DoctorRequest& request, const HealthFn& tell) {
  const std::string& folder = request.kernel_cache;
  if (folder.empty()) {
    tell({"cache", "folder", HealthLevel::Problem,
          "there is no folder for compiled kernels: each start compiles again",
          "set APR_KERNEL_CACHE, XDG_CACHE_HOME or HOME"});
    return;
  }
  const fs::path base = existing(folder);
  // Tried, not asked: what access(2) says of a read-only file system is not what a write meets.
  try {
    AtomicFile probe((base / fmt::format(".apr-doctor-{}", ::getpid())).native());
    tell({"cache", "folder", HealthLevel::Good,
          folder + (base == folder ? ", writable" : " (not made yet; it can be)"), ""});
  } catch (const Error& error) {
    tell({"cache", "folder", HealthLevel::Problem, printable(error.what(), kLongPath),
          "make it writable, or name another with APR_KERNEL_CACHE: kernels are compiled again at every "
          "start"});
  }
  std::error_code failure;
  const fs::space_info space = fs::space(base, failure);
  if (!failure) {
    HealthFinding disk{"cache",
                       "disk",
                       HealthLevel::Good,
                       fmt::format("{} free; kernels take at most {}", human_bytes(space.available),
                                   human_bytes(kDefaultCacheBytes)),
                       "",
                       false,
                       static_cast<double>(space.available),
                       "bytes"};
    if (space.available < kDefaultCacheBytes) {
      disk.level = HealthLevel::Problem;
      disk.advice = "free some, or name a folder on another disk with APR_KERNEL_CACHE";
    }
    tell(std::move(disk));
  }
  const KernelCache cache({folder, 0, "", {}});
  uint64_t bytes = 0;
  size_t damaged = 0;
  const std::vector<CacheEntry> entries = cache.verify();
  for (const CacheEntry& entry : entries) bytes += entry.bytes, damaged += entry.damage.empty() ? 0 : 1;
  HealthFinding kernels{"cache", "kernels", HealthLevel::Good,
                        fmt::format("{}, {}; every checksum agrees", entries.size(), human_bytes(bytes)), ""};
  if (damaged > 0) {
    kernels.level = HealthLevel::Problem;
    kernels.found = fmt::format("{} of {} are damaged", damaged, entries.size());
    kernels.advice = "`aprctl cache clear --damaged` removes them; they are also built again when needed";
  }
  tell(std::move(kernels));
}

void examine_model(const DoctorRequest& request, const HealthFn& tell) {
  if (request.model.empty()) {
    tell({"model", "shipped", HealthLevel::Problem, request.model_missing,
          "commands need a model then: name one with --model"});
    return;
  }
  // Run, not looked at: this is what a user will do first.
  try {
    const Model model = open_model(request.model);
    const std::unique_ptr<Plan> plan = build_plan(model, *request.catalog);
    const Device device(request.catalog->backend(request.reference), {});
    LoadRequest load;
    load.n_ctx = load.n_batch = 16;
    Session session(device, plan->c(), load);
    const std::vector<int32_t> tokens = {0, 1, 2, 3};
    for (const float logit : session.feed(tokens, 0))
      if (!std::isfinite(logit)) throw Error("{}: the logits are not finite", request.model);
    tell({"model", "shipped", HealthLevel::Good,
          fmt::format("{}, {}; runs on {}", request.model, human_bytes(model.weight_bytes()),
                      request.reference),
          ""});
  } catch (const Error& error) {
    tell({"model", "shipped", HealthLevel::Problem, printable(error.what(), kLongPath),
          "`aprctl qa` judges the model; install apr again if the file is damaged", true});
  }
}

void examine_probes(const DoctorRequest& request, const HealthFn& tell) {
  for (const std::string& name : request.unknown_probes)
    tell({"probes", name, HealthLevel::Problem, "is set, is no probe of this program, and changes nothing",
          "unset it, or correct its name; `aprctl probes` lists them"});
}

}  // namespace apr
