// From a profile to what a backend gets: rules checked against the kernels that it has.
#pragma once

#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "apr/backend.h"
#include "core/profile/profile.h"

namespace apr {

struct KernelParam {
  std::string name, meaning;
  std::vector<int64_t> values;
  std::vector<std::string> value_names;  // empty: numbers
  int64_t preset;

  // "8", or a value's name.
  std::string text(int64_t value) const;
};

struct KernelTemplate {
  std::string name, op, view, summary, arch, origin, hash;
  uint32_t m_min, m_max;  // m_max 0: no bound
  std::vector<std::string> layouts, formats;
  std::vector<KernelParam> params;
};

// What a backend can choose, in its order; empty for one that cannot tell. Throws apr::Error with the
// backend's reason.
std::vector<KernelTemplate> kernel_templates(
    const apr_backend& backend, const std::vector<std::pair<std::string, std::string>>& settings);
const KernelTemplate* find_template(const std::vector<KernelTemplate>& templates, const std::string& name);
// Whether another template than the one in use is made for the same operation, tokens and weight format. It
// may refuse for reasons of its own all the same: only the backend can tell.
bool may_serve(const KernelTemplate& kernel, const apr_kernel_info& in_use, const apr_quant_format& format);
// Over all of them: what a stamp holds.
std::string templates_hash(const std::vector<KernelTemplate>& templates);

// The rules that one backend gets, as the waist wants them. Owns what it points to; never copied.
class KernelRules {
 public:
  KernelRules() = default;
  KernelRules(const KernelRules&) = delete;
  KernelRules& operator=(const KernelRules&) = delete;

  // Adds those of `rules` that are for the backend, after those that are there. Throws apr::Error with file
  // and line: a name or value that the backend does not have (with those that it has), a rule that can never
  // match.
  void add(const std::vector<ProfileRule>& rules, const std::string& backend,
           const std::vector<KernelTemplate>& templates);

  const apr_kernel_rule* const* c() const { return list_.data(); }
  uint32_t size() const { return static_cast<uint32_t>(list_.size()); }

 private:
  struct Kept {
    ProfileRule rule;
    std::optional<KernelTemplate> kernel;  // that the rule names
    std::vector<apr_rule_value> values;
    apr_kernel_rule c;
  };
  std::deque<Kept> kept_;
  std::vector<const apr_kernel_rule*> list_;
};

}  // namespace apr
