// Which profile is in force, and what a backend gets of it: a file's rules behind those that were forced by
// name.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/probe/probe.h"
#include "core/profile/rules.h"

namespace apr {

struct ProfileInForce {
  Profile profile;
  std::vector<std::string> stamp_differences;  // not empty: the file's rules are not used
  std::unique_ptr<KernelRules> rules;          // never null
};

// Checks everything against the backend's kernels. `here` is what a stamp is compared with. Throws apr::Error
// with file and line, or a usage error for APR_FORCE_KERNEL.
ProfileInForce put_in_force(Profile profile, const std::vector<PatternKernel>& forced,
                            const std::string& backend, const std::vector<KernelTemplate>& templates,
                            const ProfileStamp& here);

// What a stamp of this device, backend and plan holds.
ProfileStamp make_stamp(const apr_device_info& device, const std::vector<KernelTemplate>& templates,
                        const apr_plan& plan);

// Origins of the rules that chose a kernel of a session, each once, in order of first use.
std::vector<std::string> rules_used(const std::vector<apr_kernel_info>& kernels);

// A pattern of APR_FORCE_KERNEL that chose nothing is a usage error: it does not do what it was set for.
void check_forced(const ProfileInForce& in_force, const std::vector<apr_kernel_info>& kernels);

}  // namespace apr
