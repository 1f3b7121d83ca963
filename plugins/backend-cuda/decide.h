// What is decided at load before a device is touched: programs, and for each of their launches a kernel with
// its parameters and the layouts of its weights. Plain data, so that it can be explained where there is no
// GPU.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "apr/backend.h"
#include "plugins/backend-cuda/program.h"
#include "plugins/backend-cuda/rules.h"
#include "plugins/backend-cuda/spec.h"

namespace apr::cuda {

// The kernel of one launch.
struct Choice {
  std::string name;  // of the template, or of the generic kernel
  std::string params, reason;
  std::string rule, rejected;     // as in apr_kernel_info
  Specialised source;             // of a template
  std::string key;                // of the cache; of a generic kernel what tells its modules apart
  size_t kernel = 0;              // index of the session's kernels
  std::vector<size_t> explained;  // entries of Decision::explained
};

// One answer to apr_backend.kernel: a launch and one of its weights.
struct Explained {
  std::string stage, weight, format, layout, kernel, config, reason, op, spec, rule, rejected;
  uint64_t bytes = 0, n = 0, k = 0;
  uint32_t m_least = 1, m_most = 1, launch = 0;
  double microseconds = 0;
  const Choice* choice = nullptr;

  apr_kernel_info info() const;  // points into this
};

struct PlannedProgram {
  Program program;
  Served served;
  uint32_t rows = 0;  // that its buffers have room for
};

struct DecideOptions {
  bool generic = false;  // kernels that were built with the program
  bool fuse = true;
  bool precise = false;
  uint32_t n_batch = 1;
  std::string compiler;  // for keys
  std::function<void(int level, const std::string&)> log;
};

struct Decision {
  std::vector<PlannedProgram> bodies, heads;                  // by m ascending, the one for any number last
  std::vector<int32_t> crossing;                              // values from body to head
  std::vector<std::vector<std::unique_ptr<Choice>>> choices;  // per program (bodies, then heads), per step
  std::vector<std::unique_ptr<Choice>> gathers;               // per crossing value
  std::vector<std::unique_ptr<Choice>>
      ranges;                              // per weight of the plan; null where no tensor core eats it as f16
  std::vector<const apr_layout*> layouts;  // per weight of the plan
  std::vector<Explained> explained;
  uint64_t token_bytes = 0;  // weight bytes that one decode step reads
  uint64_t dispatches = 0;   // choices by type or shape
};

// GEMV kernels compute all their rows, in use or not.
constexpr uint32_t kLeastRows = 8;

// Throws Failure: APR_UNSUPPORTED where no template serves a launch, APR_INVALID for a rule that cannot be
// obeyed.
Decision decide(const apr_plan& plan, const apr_load_options& load, const Registry& registry,
                const Target& target, const DecideOptions& options);

}  // namespace apr::cuda
