// A plan that was loaded: weights bound, memory allocated, steps run.
#pragma once

#include <apr/backend.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "attention.h"
#include "batch.h"
#include "device.h"
#include "linear.h"
#include "program.h"
#include "step.h"

struct apr_session {
  apr_session(apr_device& device, const apr_plan* plan, const apr_load_options& options);  // throws Failure

  void step(const apr_batch& batch, apr_step_output& output);  // throws Failure
  void tap(apr_tap_fn fn, void* user);
  void info(apr_session_info& out) const;
  void kernel(uint32_t index, apr_kernel_info& out) const;  // throws Failure
  void code(uint32_t index, apr_kernel_code& out);          // throws Failure
  // As apr_backend.measure; throws Failure.
  void measure(uint32_t index, uint32_t repetitions, const apr_kernel_rule* const* candidates, uint32_t n,
               apr_measurement* results);

 private:
  // A phase that is run by all threads, and those after it that the last thread runs by itself while the others wait.
  struct Section {
    uint32_t phase;
    uint32_t last_serial;  // phases phase + 1 .. last_serial are serial; = phase: none
    uint64_t tasks;
    uint32_t share;   // see TaskRanges::claim
    uint32_t splits;  // GEMM: parts into which the rows of a panel's task are cut
  };

  void describe(uint32_t n_batch);
  void run_phases(uint32_t begin, uint32_t end);
  void run_section(const Section& section, uint32_t index, uint32_t thread);
  void run_tasks(const apr::cpu::Phase& phase, const Section& section, uint32_t thread, uint64_t begin,
                 uint64_t end);
  void run_serial(uint32_t begin, uint32_t end);
  bool is_serial(const apr::cpu::Phase& phase) const;
  Section section_of(const apr::cpu::Phase& phase, uint32_t index) const;
  double run_alone(const apr::cpu::Phase& phase);  // microseconds
  uint32_t rows_of(const apr::cpu::Phase& phase) const { return phase.head ? state_.head_rows : state_.rows; }
  void report(uint32_t phase);
  void finish_phase(uint32_t phase);

  apr_device& device_;
  apr::cpu::Chooser chooser_;  // reads the caller's rules: asked during load only
  apr::cpu::Program program_;
  apr::cpu::Batches batches_;
  apr::cpu::AttentionPartials partials_;
  std::vector<apr::cpu::LinearWorkspace> linear_;        // [threads]
  std::vector<apr::cpu::AttentionWorkspace> attention_;  // [threads]
  apr::cpu::TaskRanges ranges_;
  uint32_t n_top_;  // candidates that a step may be asked for
  apr::cpu::StepState state_{};
  std::vector<Section> sections_;
  double mark_ = 0;  // when the last phase ended, in microseconds

  // What was chosen for each operation, as text.
  struct Choice {
    std::string stage, weight, format, kernel, config, reason, rule, rejected, op_name, spec;
    uint64_t bytes, n, k;
    uint32_t op, least, most;  // of the plan; tokens that it serves
    bool many;                 // more tokens than a GEMV takes
  };
  std::vector<Choice> choices_;
  std::map<uint32_t, std::pair<std::string, std::string>>
      code_;  // functions and instruction sets that were asked for
  apr_session_info info_{};
  uint64_t choices_at_load_ = 0;
  apr_tap_fn tap_ = nullptr;
  void* tap_user_ = nullptr;
};
