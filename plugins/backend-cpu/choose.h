// The backend's choices as data: which kernels there are for a weight, their parameters, and which one a rule
// or the format gives each weight. Asked at load only.
#pragma once

#include <apr/backend.h>
#include <apr/rules.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace apr::cpu {

struct Kernels;

// Calls fn for each kernel that a rule may name.
void list_templates(apr_kernel_template_fn fn, void* user);

// Which of the two forms of activations a kernel eats.
enum class Eats { Floats, Int8 };

struct KernelChoice {
  const char* name = "";  // "gemv_int"
  Eats eats = Eats::Floats;
  apr_isa isa = APR_ISA_PORTABLE;  // upper bound for the format's functions; the backend's own run as this
  uint64_t task_bytes = 0;         // gemv: weights of a thread's task
  uint64_t columns = 0;  // gemm: columns that are unpacked at a time, before rounding to the format's blocks
  bool copied = false;   // gemv: the weight is copied to memory with large pages at load
  std::string reason, rule, rejected;  // as in apr_kernel_info
};

class Chooser {
 public:
  // most: upper bound for all kernels; copies: weights are copied unless a rule says otherwise. Throws
  // Failure(APR_INVALID) that begins with a rule's origin for what this backend does not have.
  Chooser(const apr_load_options& options, apr_isa most, bool copies);

  // Throws Failure(APR_INVALID) for a rule that cannot be obeyed.
  KernelChoice gemv(const apr_weight& weight) const;  // 1 to APR_CPU_GEMV_MAX_M tokens
  KernelChoice gemm(const apr_weight& weight) const;  // more
  KernelChoice embed(const apr_weight& weight) const;

  // For a candidate of apr_backend.measure: as if the rule matched.
  KernelChoice obey(const apr_kernel_rule& rule, const apr_weight& weight, const char* op, uint32_t least,
                    uint32_t most) const;

  uint32_t passed_over() const { return passed_over_; }
  bool precise() const { return precise_; }

 private:
  struct Bound {
    const apr_kernel_rule* rule;
    const struct Template* kernel;  // null: the rule names none
  };
  KernelChoice choose(const apr_weight& weight, const char* op, uint32_t least, uint32_t most) const;
  KernelChoice make(const apr_weight& weight, const char* op, uint32_t least, uint32_t most,
                    const Bound* bound) const;
  Bound bind(const apr_kernel_rule& rule) const;

  std::vector<Bound> rules_;
  apr_isa most_;
  bool copies_, precise_;
  uint32_t n_batch_, passed_over_ = 0;
};

}  // namespace apr::cpu
