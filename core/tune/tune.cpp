// The rounds: whose turn it is, and what is kept when the time is over or someone ends the search.
#include "core/tune/tune.h"

#include <memory>

#include "core/base/error.h"
#include "core/tune/budget.h"
#include "core/tune/measure.h"
#include "core/tune/search.h"

namespace apr {

TuneOutcome tune(const TuneRequest& request) {
  const apr_backend& backend = *request.backend;
  if (!can_measure(backend))
    throw Error("backend {} cannot measure kernels by themselves, so it cannot be tuned", backend.name);
  Budget budget(request.seconds, request.stop);
  TuneOutcome outcome;
  outcome.specs = tune_specs(request);
  std::map<std::string, TunedSpec> known;
  if (!request.journal.empty()) known = read_journal(request.journal, request.identity);
  const size_t n = outcome.specs.size();
  outcome.found.resize(n);
  std::vector<std::unique_ptr<Search>> open(n);
  size_t done = 0;
  const auto close = [&](size_t i, const TunedSpec& found) {
    outcome.found[i] = found;
    open[i] = nullptr;
    if (request.progress) request.progress(++done, n, outcome.specs[i], &found);
  };
  const auto keep = [&](const TunedSpec& state) {
    known[state.key] = state;
    if (!request.journal.empty()) write_journal(request.journal, request.identity, known);
  };
  for (const TuneSpec& spec : outcome.specs) outcome.resumed += known.contains(spec.key);
  if (request.resumed && outcome.resumed > 0) request.resumed(outcome.resumed);
  for (size_t i = 0; i < n; ++i) {
    const auto old = known.find(outcome.specs[i].key);
    if (old != known.end() && old->second.finished)
      close(i, old->second);
    else
      open[i] = std::make_unique<Search>(request, outcome.specs[i], budget, keep);
  }
  // Round by round through all demands, and not one demand to its end after the other: the first round brings
  // most of what there is to gain, so a short time is best spent on first rounds.
  std::vector<bool> begun(n, false);
  for (bool again = true; again && !budget.over();) {
    again = false;
    for (size_t i = 0; i < n && !budget.over(); ++i) {
      if (open[i] == nullptr || open[i]->cut()) continue;
      Search& search = *open[i];
      const auto old = known.find(outcome.specs[i].key);
      const bool fresh = !begun[i] && old == known.end();
      // What cannot even be looked at in time is left for a next run.
      if (fresh && budget.left() < budget.first_look) continue;
      if (request.progress) request.progress(done, n, outcome.specs[i], nullptr);
      if (!begun[i]) {
        const TunedSpec from = fresh ? TunedSpec{} : old->second;
        if (!search.begin(fresh ? nullptr : &from)) {
          const TunedSpec found = search.finish();
          keep(found);
          close(i, found);
          continue;
        }
        begun[i] = true;
      }
      const bool better = search.round();
      again |= better && !search.cut();
      if (better || search.cut()) continue;
      const TunedSpec state = search.so_far(), found = search.finish();
      keep(found.finished ? found : state);
      if (!found.finished) outcome.complete = false;
      if (!budget.stopped() || found.finished) close(i, found);
    }
  }
  for (const auto& search : open) outcome.complete &= search == nullptr;
  outcome.interrupted = !outcome.complete && budget.stopped();
  for (const auto& spec : outcome.specs)
    if (const auto it = known.find(spec.key); it != known.end())
      ++outcome.kept, outcome.kept_candidates += static_cast<uint32_t>(1 + it->second.tries.size());
  if (outcome.interrupted) return outcome;
  // What the end of the time cut short counts for this run's profile; a next run goes on from the journal.
  for (size_t i = 0; i < n; ++i)
    if (open[i] != nullptr && begun[i]) close(i, open[i]->finish());
  outcome.interrupted = budget.stopped() && !outcome.complete;
  return outcome;
}

}  // namespace apr
