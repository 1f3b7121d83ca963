// When a rule matches (apr_kernel_rule): the one definition, shared by every backend and by whoever wants to
// predict one.
#pragma once

#include <fnmatch.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "backend.h"

namespace apr {

// A kernel that is about to be chosen.
struct KernelDemand {
  struct Tensor {
    const char* name;    // "" for none
    const char* role;    // "" for none
    const char* format;  // "" for none
    const char* layout;  // null: this kernel decides it
    uint64_t n, k;       // of an operation without weights: 0 and the columns that it works on
  };
  const char* op;
  uint32_t m_min, m_max;  // tokens that the kernel will serve, inclusive
  const char* arch;       // of the device
  const Tensor* tensors;  // all that the kernel reads: a fused one has several
  size_t n_tensors;       // at least 1
};

// What a rule says of its own kernel: it never matches what that is not made for. Null kernel: no limits.
struct RuleLimits {
  const char* op = nullptr;
  uint32_t m_min = 0, m_max = 0;  // m_max 0: no bound
};

inline bool rule_arch_matches(const char* wanted, const char* arch) {
  const size_t length = std::strlen(wanted);
  return std::strncmp(wanted, arch, length) == 0 &&
         (std::strcmp(arch + length, "") == 0 || std::strcmp(arch + length, "a") == 0);
}

// A shell pattern names a weight by its whole name (blk.0.ffn_down.weight), by that without its ending
// (blk.*.ffn_down), or by its role (ffn_down).
inline bool weight_name_matches(const char* pattern, const char* name, const char* role) {
  if (fnmatch(pattern, name, 0) == 0 || fnmatch(pattern, role, 0) == 0) return true;
  const std::string whole(name), ending = ".weight";
  if (whole.size() <= ending.size() ||
      whole.compare(whole.size() - ending.size(), ending.size(), ending) != 0)
    return false;
  return fnmatch(pattern, whole.substr(0, whole.size() - ending.size()).c_str(), 0) == 0;
}

inline bool rule_tensor_matches(const apr_kernel_rule& rule, const KernelDemand::Tensor& t) {
  if (rule.qtype && std::strcmp(rule.qtype, t.format) != 0) return false;
  if (rule.role && std::strcmp(rule.role, t.role) != 0) return false;
  if (rule.tensor && !weight_name_matches(rule.tensor, t.name, t.role)) return false;
  if (rule.layout && t.layout && std::strcmp(rule.layout, t.layout) != 0) return false;
  return rule.n[0] <= t.n && t.n <= rule.n[1] && rule.k[0] <= t.k && t.k <= rule.k[1];
}

// True when the operation and the architecture are the rule's, the kernel serves at least one number of
// tokens in the rule's range, and one of its tensors has all that the rule asks of a tensor.
inline bool rule_matches(const apr_kernel_rule& rule, const RuleLimits& limits, const KernelDemand& demand) {
  if (rule.op && std::strcmp(rule.op, demand.op) != 0) return false;
  if (rule.arch && !rule_arch_matches(rule.arch, demand.arch)) return false;
  if (demand.m_max < rule.m[0] || rule.m[1] < demand.m_min) return false;
  if (limits.op && std::strcmp(limits.op, demand.op) != 0) return false;
  if (limits.op && (demand.m_max < limits.m_min || (limits.m_max != 0 && limits.m_max < demand.m_min)))
    return false;
  for (size_t i = 0; i < demand.n_tensors; ++i)
    if (rule_tensor_matches(rule, demand.tensors[i])) return true;
  return false;
}

}  // namespace apr
