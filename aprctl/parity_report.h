// What `aprctl parity` says: the report and the bisection as JSON and as text, and what to try next.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "aprctl/engine.h"
#include "core/gate/bisect.h"

namespace apr::ctl {

// The bisection of one side.
struct SideBisection {
  std::string side;  // "cuda", "cpu:precise"
  std::vector<BisectPass> passes;
  BisectFinding finding;
  std::string kernel;                 // that the side uses for the faulty stage, "" when it did not say
  std::vector<std::string> try_next;  // command lines
};

nlohmann::ordered_json parity_json(const Engine& engine, const ParityReport& report,
                                   const std::vector<SideBisection>& bisections);
std::string describe(const SideBisection& bisection);

// The kernel that a session uses for a stage: "gemv_int (rows=2): q4_k".
std::string kernel_of(Session& session, const StageVerdict& verdict);
// Command lines that narrow a fault further, the most telling first. session: the side's, as it runs;
// bisect_command, run_command: `aprctl parity --bisect ...` of the two sides, `aprctl run ... -n 1` without backend.
std::vector<std::string> next_probes(const SideBisection& bisection, const apr_plan& plan, Session& session,
                                     const std::vector<KernelTemplate>& templates,
                                     const std::string& bisect_command, const std::string& run_command);

}  // namespace apr::ctl
