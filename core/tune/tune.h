// Finds the parameters of kernels that are fastest on this device, and writes them as a profile.
//
// Every distinct demand (apr_kernel_info.spec) of a session is searched by itself: from the session's own
// choice, and from every other template that can serve it, one parameter at a time, all its values measured together,
// the best kept; until a round over all parameters brings nothing. Rounds go through all demands in turn. The default stays unless the best one, measured again beside it, is faster by
// more than the noise. A candidate whose result differs by more than rounding explains, or that does not
// build or launch, is dropped.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "apr/backend.h"
#include "core/profile/rules.h"

namespace apr {

// A demand, and who has it.
struct TuneSpec {
  struct Tensor {
    std::string name, role, format;
    uint64_t n, k;
    bool operator==(const Tensor&) const = default;
  };
  std::string key;  // of journals: the demand, its layout and the kernel that serves it
  std::string spec;
  std::string kernel;               // template that the session chose
  std::vector<std::string> others;  // templates that are made for the same
  uint32_t index;                   // of one of its kernels
  uint32_t m_min, m_max;
  bool most;  // it serves the largest batches: any number from m_min on
  std::vector<std::vector<Tensor>> launches;
  uint64_t bytes = 0;  // weights of one launch
};

// A candidate that was measured.
struct TunedTry {
  std::string kernel;                     // another template than the session's; "": the same
  std::map<std::string, int64_t> params;  // that differ from the template's own
  double us;                              // 0: it cannot be used
};

// What was found for a demand.
struct TunedSpec {
  std::string key;
  double base_us = 0, best_us = 0;  // last measured beside each other
  std::string kernel;               // another template than the session's; "": the same
  std::map<std::string, int64_t>
      params;          // that differ from the template's; no kernel either: the default stays
  std::string config;  // of the best, as the backend writes it
  uint32_t tried = 0, failed = 0, inexact = 0;  // candidates; of them dropped
  std::string note;                             // the first failure's message, or why nothing was measured
  bool finished = true;         // false, in journals: the best so far; a next run goes on from it
  std::vector<TunedTry> tries;  // beside the default; none of them is measured again, but for the best
  double seconds = 0;           // that measuring one candidate takes
};

struct TuneRequest {
  const apr_backend* backend;
  apr_session* session;
  const apr_plan* plan;
  std::vector<KernelTemplate> templates;
  std::string arch;  // of the device, for instruction sets that are beyond it
  std::vector<std::string> ops = {"linear"};
  bool all_tokens = false;  // also the kernels between 1 token and the largest batch
  // Of the whole search, its last measurements included; what is found by then is kept. A call of the backend cannot be
  // ended, so that the last one may end later, by what the machine has become slower since the calls before it.
  double seconds = 150;
  std::function<bool()> stop;  // asked between measurements: true ends the search at once; null: never
  uint32_t repetitions = 7;
  double int8_bound, float_bound;  // on apr_measurement.error, for kernels of the int view and others
  std::string journal;             // file; "" = none
  std::string identity;            // of all that makes a journal's figures valid
  std::function<void(size_t done, size_t total, const TuneSpec& spec, const TunedSpec* found)> progress;
  std::function<void(size_t specs)> resumed;  // at the beginning: so many demands are taken from the journal
};

struct TuneOutcome {
  std::vector<TuneSpec> specs;
  std::vector<std::optional<TunedSpec>> found;  // per spec; nothing: the time was over
  uint32_t resumed = 0;                         // of them taken from the journal, whole or in part
  uint32_t kept = 0, kept_candidates = 0;       // demands with a measurement by now, and all their candidates
  bool complete = true;                         // false: a next run has something to do
  bool interrupted = false;                     // by `stop`; then found has only what was finished
};

// Demands of the session that can be tuned, decode first, the most bytes first.
std::vector<TuneSpec> tune_specs(const TuneRequest& request);

// Throws apr::Error for a backend that cannot measure.
TuneOutcome tune(const TuneRequest& request);

// Rules that give every demand what was found for it and no other demand anything.
std::vector<ProfileRule> rules_of(const TuneOutcome& outcome, const std::string& backend,
                                  const std::vector<KernelTemplate>& templates);

// Whether runs took longer than others of the same by more than the noise: the fastest and the median both by more than
// 2%. Seconds of each, at least one.
bool slower(const std::vector<double>& before, const std::vector<double>& after);

// ---- journals: what was found so far, so that an interrupted run goes on
// ----------------------------------------------

std::map<std::string, TunedSpec> read_journal(const std::string& file, const std::string& identity);
// Replaces the file at once. Throws apr::Error when it cannot be written.
void write_journal(const std::string& file, const std::string& identity,
                   const std::map<std::string, TunedSpec>& found);

}  // namespace apr
