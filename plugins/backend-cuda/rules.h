// The rules of one load (apr_kernel_rule), checked against the templates, and the questions that lowering and
// choosing ask.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "apr/backend.h"
#include "apr/rules.hpp"
#include "plugins/backend-cuda/templates.h"

namespace apr::cuda {

// Tokens that the kernels of a program serve, inclusive.
struct Served {
  uint32_t least = 1, most = 1;
};

struct BoundRule {
  const apr_kernel_rule* rule;
  const Template* kernel;  // null: the rule leaves it to the backend
  RuleLimits limits;
};

class Rules {
 public:
  Rules() = default;
  // Throws Failure(APR_INVALID) that begins with a rule's origin for what this backend does not have. Rules
  // for kernels that round activations are left out of a precise session; `passed_over` counts them.
  Rules(const apr_load_options& options, const Registry& registry, const std::string& arch, bool precise);

  // The first that matches, or null.
  const BoundRule* match(const KernelDemand& demand) const;
  // The view that a rule's kernel gives a linear over this weight; nothing where the codec decides.
  std::optional<View> view(const apr_weight& weight, Served m) const;

  size_t size() const { return rules_.size(); }
  const BoundRule& front() const { return rules_.front(); }
  size_t passed_over() const { return passed_over_; }
  const std::string& arch() const { return arch_; }
  // One that was asked for by name, or null.
  const apr_kernel_rule* forced() const;

 private:
  std::vector<BoundRule> rules_;
  std::string arch_;
  size_t passed_over_ = 0;
};

}  // namespace apr::cuda
