#include "core/profile/select.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/base/log.h"
#include "core/base/sha256.h"

namespace apr {

namespace {

constexpr const char* kForceKernel = "APR_FORCE_KERNEL";

std::vector<ProfileRule> rules_of(const std::vector<PatternKernel>& forced) {
  std::vector<ProfileRule> rules;
  for (const PatternKernel& each : forced) {
    ProfileRule rule;
    rule.origin = fmt::format("{}={}={}", kForceKernel, each.pattern, each.kernel);
    rule.tensor = each.pattern;
    rule.kernel = each.kernel;
    rule.forced = true;
    rules.push_back(std::move(rule));
  }
  return rules;
}

}  // namespace

ProfileInForce put_in_force(Profile profile, const std::vector<PatternKernel>& forced,
                            const std::string& backend, const std::vector<KernelTemplate>& templates,
                            const ProfileStamp& here) {
  ProfileInForce out{std::move(profile), {}, std::make_unique<KernelRules>()};
  try {
    out.rules->add(rules_of(forced), backend, templates);
  } catch (const Error& error) {
    throw Error(error.what(), ErrorKind::Usage);
  }
  const bool for_backend =
      std::any_of(out.profile.rules.begin(), out.profile.rules.end(),
                  [&](const ProfileRule& rule) { return rule.backend.empty() || rule.backend == backend; });
  if (out.profile.stamp && for_backend) out.stamp_differences = differences(*out.profile.stamp, here);
  if (!out.stamp_differences.empty()) {
    log_warning(
        "profile {}: its {} rules are not used, since it was tuned for something else ({}); `aprctl tune` "
        "makes a new one",
        out.profile.file, out.profile.rules.size(), joined(out.stamp_differences, "; "));
    return out;
  }
  out.rules->add(out.profile.rules, backend, templates);
  return out;
}

ProfileStamp make_stamp(const apr_device_info& device, const std::vector<KernelTemplate>& templates,
                        const apr_plan& plan) {
  ProfileStamp stamp{device.name, device.arch, device.software, templates_hash(templates), {}};
  for (uint32_t i = 0; i < plan.n_weights; ++i) {
    const apr_quant_format& format = *plan.weights[i]->format;
    std::string& hash = stamp.codecs[format.name];
    if (hash.empty())
      hash = format.codec != nullptr ? sha256_hex(format.codec->source).substr(0, 16) : "none";
  }
  return stamp;
}

std::vector<std::string> rules_used(const std::vector<apr_kernel_info>& kernels) {
  std::vector<std::string> used;
  for (const apr_kernel_info& kernel : kernels) {
    const std::string rule = kernel.rule == nullptr ? "" : kernel.rule;
    if (!rule.empty() && std::find(used.begin(), used.end(), rule) == used.end()) used.push_back(rule);
  }
  return used;
}

void check_forced(const ProfileInForce& in_force, const std::vector<apr_kernel_info>& kernels) {
  const std::vector<std::string> used = rules_used(kernels);
  for (uint32_t i = 0; i < in_force.rules->size(); ++i) {
    const apr_kernel_rule& rule = *in_force.rules->c()[i];
    if (rule.forced != 0 && std::find(used.begin(), used.end(), rule.origin) == used.end())
      throw usage_error(
          "{}: the pattern '{}' chose no kernel of this model; `aprctl kernels explain` shows its tensors",
          rule.origin, rule.tensor);
  }
}

}  // namespace apr
