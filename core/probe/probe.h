// Probes: the environment variables that change what the program does, as one typed table. A probe is a
// member of Probes, found through its row, so a consumer reads `probes.no_graph` and the compiler checks name
// and type. Unset changes nothing.
//
// One convention for flags: 1, true, on, yes and 0, false, off, no, in any case. Everything else is a usage
// error that lists the good values, and so is a probe that is set to nothing.
#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "apr/quant.h"

namespace apr {

// One entry of APR_FORCE_QTYPE.
struct PatternQtype {
  std::string pattern;  // shell pattern (* ? [..]) over a tensor's name or its role: "blk.*.ffn_down.weight",
                        // "ffn_down"
  std::string format;   // "q8_0", "vendor.nf4"
};

// One entry of APR_FORCE_KERNEL.
struct PatternKernel {
  std::string pattern;  // as of PatternQtype
  std::string kernel;   // a template's name; whether there is one, the backend knows
};

// Distinct types, so that a row's slot says how its text is parsed.
struct ProfileName {
  std::string text;  // a file, or the name of a profile
};
struct FormatName {
  std::string text;  // "q8_0", "vendor.nf4"
};

struct Probes {
  std::vector<std::filesystem::path> plugin_path;     // APR_PLUGIN_PATH
  std::optional<apr_isa> cpu_isa;                     // APR_CPU_ISA: upper bound
  bool no_graph = false;                              // APR_NO_GRAPH
  bool no_fusion = false;                             // APR_NO_FUSION
  bool skip_parity_gate = false;                      // APR_SKIP_PARITY_GATE
  bool skip_fp8_warmup = false;                       // APR_SKIP_FP8_WARMUP
  std::optional<std::filesystem::path> kernel_cache;  // APR_KERNEL_CACHE
  std::optional<std::filesystem::path> stage_dump;    // APR_STAGE_DUMP
  std::vector<PatternQtype> force_qtype;              // APR_FORCE_QTYPE
  std::optional<FormatName> lm_head_force_qtype;      // APR_LM_HEAD_FORCE_QTYPE
  std::optional<ProfileName> profile;                 // APR_PROFILE
  std::vector<PatternKernel> force_kernel;            // APR_FORCE_KERNEL

  // The probes that were set, in the table's order, with their text: for announcements and JSON.
  std::vector<std::pair<std::string, std::string>> in_force;
  // Names that begin with APR_ and are no probe: they change nothing, and each was warned of.
  std::vector<std::string> unknown;
};

using ProbeSlot =
    std::variant<bool Probes::*, std::optional<apr_isa> Probes::*,
                 std::optional<std::filesystem::path> Probes::*, std::vector<std::filesystem::path> Probes::*,
                 std::vector<PatternQtype> Probes::*, std::optional<FormatName> Probes::*,
                 std::optional<ProfileName> Probes::*, std::vector<PatternKernel> Probes::*>;

struct ProbeInfo {
  std::string_view name;  // "APR_NO_GRAPH"
  ProbeSlot slot;         // where its value goes; its type says how the text is read
  std::string_view
      setting;  // the backends' setting that gets the value ("no_graph"), "" when backends do not see it
  std::string_view meaning;     // one sentence
  std::string_view when_unset;  // what holds then
};

std::span<const ProbeInfo> probe_table();
// The good values in words: "1, true, on, yes or 0, false, off, no".
std::string_view probe_values(const ProbeInfo& probe);

// Reads a process's environment ("NAME=value" strings, null-terminated). Throws a usage error for a bad
// value. Names that begin with APR_ and are in no row become warnings with the nearest known name;
// APR_TEST_... belongs to tests.
struct ReadProbes {
  Probes probes;
  std::vector<std::string> warnings;
};
ReadProbes read_probes(const char* const* environment);

// Of this process, with its warnings, and one line for each probe that is set, on stderr. Called once, from
// main.
Probes announce_probes();

// What backends get of the probes that are set: the setting's name and the value, flags as 1 or 0.
std::vector<std::pair<std::string, std::string>> backend_settings(const Probes& probes);

}  // namespace apr
