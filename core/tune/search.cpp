#include <algorithm>
#include <chrono>
#include <cmath>
#include <deque>
#include <memory>

#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/tune/tune.h"

namespace apr {

namespace {

using Params = std::map<std::string, int64_t>;

// One candidate as the rule that would choose it.
struct Candidate {
  explicit Candidate(const std::string& kernel, const Params& params) : kernel_(kernel), params_(params) {
    for (const auto& [name, value] : params_) values_.push_back({name.c_str(), value});
    rule_.struct_size = sizeof rule_;
    rule_.origin = "tuning";
    rule_.why = "";
    rule_.m[1] = UINT32_MAX;
    rule_.n[1] = rule_.k[1] = UINT64_MAX;
    rule_.kernel = kernel_.c_str();
    rule_.values = values_.data();
    rule_.n_values = static_cast<uint32_t>(values_.size());
  }
  Candidate(const Candidate&) = delete;
  Candidate& operator=(const Candidate&) = delete;
  const apr_kernel_rule* rule() const { return &rule_; }

 private:
  std::string kernel_;
  Params params_;
  std::vector<apr_rule_value> values_;
  apr_kernel_rule rule_{};
};

// The time that there is, less what the measurements at the end will take: they decide what is kept.
class Budget {
 public:
  explicit Budget(double seconds)
      : seconds_(seconds),
        end_(Clock::now() +
             std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds))) {}

  double to_end() const { return std::chrono::duration<double>(end_ - Clock::now()).count(); }
  double left() const { return to_end() - reserved; }
  bool over() const { return left() <= 0; }
  double tolerance() const { return 0.05 * seconds_; }

  double reserved = 0;
  double first_look = 0;  // seconds that the last demand took for its first measurement

 private:
  double seconds_;
  Clock::time_point end_;
};

class Search {
 public:
  Search(const TuneRequest& request, const TuneSpec& spec, Budget& budget)
      : request_(request), spec_(spec), budget_(budget) {
    found_.key = spec.key;
    const KernelTemplate* own = find_template(request.templates, spec.kernel);
    bound_ = own->view == "int" ? request.int8_bound : request.float_bound;
    tracks_.push_back({own, {}, 0, {}});
  }

  // The session's own kernel, the best of an earlier run, and other templates as they are; false when nothing can be
  // measured.
  bool begin(const TunedSpec& from) {
    const auto start = Clock::now();
    const auto base = measure({{tracks_[0].kernel, {}}}, request_.repetitions);
    base_cost_ = try_cost_ = budget_.first_look = seconds_since(start);
    if (base[0].status != APR_OK) {
      found_.note = base[0].message;
      return false;
    }
    found_.base_us = found_.best_us = tracks_[0].us = base[0].microseconds;
    found_.config = base[0].config;
    std::vector<Try> tries;
    for (const std::string& name : spec_.others)
      tries.push_back({find_template(request_.templates, name), {}});
    if (!from.kernel.empty() || !from.params.empty())
      tries.push_back(
          {find_template(request_.templates, from.kernel.empty() ? spec_.kernel : from.kernel), from.params});
    if (tries.empty()) return true;
    if (!affordable(tries.size())) return cut_ = true;
    const auto more = timed(tries);
    for (size_t i = 0; i < tries.size(); ++i) {
      // A template that is made for this and cannot do it here is no failure.
      if (more[i].status != APR_OK && tries[i].kernel != tracks_[0].kernel) continue;
      ++found_.tried;
      if (!usable(more[i])) continue;
      Track& track = track_of(tries[i].kernel);
      if (track.us == 0 || more[i].microseconds < track.us)
        track.best = tries[i].params, track.us = more[i].microseconds;
    }
    reserve();
    return true;
  }

  // For the journal, between rounds.
  TunedSpec so_far() const {
    TunedSpec state = found_;
    const Track& best = leader();
    state.kernel = other_name(best), state.params = best.best, state.best_us = best.us,
    state.finished = false;
    return state;
  }

  // Whether the time did not allow all that was to be tried.
  bool cut() const { return cut_; }

  // One round over all parameters; true when it brought something.
  bool round() {
    // Templates that are far behind do not catch up by their parameters.
    constexpr double kHopeless = 1.5;
    bool better = false;
    for (Track& track : tracks_)
      for (const KernelParam& param : track.kernel->params) {
        if (budget_.over()) return cut_ = true, better;
        if (track.us <= kHopeless * leader().us) better |= improve(param, track);
      }
    return better;
  }

  TunedSpec finish() {
    if (const Track& best = leader(); changed(best)) confirm({best.kernel, best.best});
    budget_.reserved -= reserved_, reserved_ = 0;
    return found_;
  }

 private:
  struct Try {
    const KernelTemplate* kernel;
    Params params;  // that differ from the session's kernel's, or from another template's own
  };
  struct Track {
    const KernelTemplate* kernel;
    Params best;
    double us;
    std::map<Params, bool> seen;
  };

  Track& track_of(const KernelTemplate* kernel) {
    for (Track& track : tracks_)
      if (track.kernel == kernel) return track;
    return tracks_.emplace_back(Track{kernel, {}, 0, {}});
  }
  const Track& leader() const {
    return *std::min_element(tracks_.begin(), tracks_.end(),
                             [](const Track& a, const Track& b) { return a.us < b.us; });
  }
  bool changed(const Track& track) const { return &track != &tracks_[0] || !track.best.empty(); }
  std::string other_name(const Track& track) const { return &track == &tracks_[0] ? "" : track.kernel->name; }

  // The last measurement: two kernels, with three times the repetitions where there is time for them.
  double confirmation() const { return 2 * base_cost_; }
  void reserve() {
    const double needed = changed(leader()) ? confirmation() : 0;
    budget_.reserved += needed - reserved_, reserved_ = needed;
  }
  bool affordable(size_t tries) const {
    return budget_.left() - (confirmation() - reserved_) >= static_cast<double>(tries) * try_cost_;
  }

  // All values of one parameter, the others as they are; true when one is faster.
  bool improve(const KernelParam& param, Track& track) {
    std::vector<Try> tries = {{track.kernel, track.best}};
    std::vector<Params> fresh;
    for (const int64_t value : param.values) {
      Params next = track.best;
      next[param.name] = value;
      if (next != track.best && !track.seen[next]) fresh.push_back(std::move(next));
    }
    // As many as there is time for.
    while (!fresh.empty() && !affordable(1 + fresh.size())) fresh.pop_back(), cut_ = true;
    if (fresh.empty()) return false;
    for (const Params& params : fresh) track.seen[params] = true, tries.push_back({track.kernel, params});
    const auto results = timed(tries);
    if (results[0].status == APR_OK)
      track.us = results[0].microseconds;  // again, under the conditions of the others
    bool better = false;
    for (size_t i = 1; i < tries.size(); ++i) {
      ++found_.tried;
      if (!usable(results[i])) continue;
      // A step of the search may be small; whether it was real is decided at the end.
      if (results[i].microseconds < 0.995 * track.us)
        track.best = tries[i].params, track.us = results[i].microseconds, better = true;
    }
    reserve();
    return better;
  }

  bool usable(const apr_measurement& m) {
    if (m.status != APR_OK) {
      ++found_.failed;
      if (found_.note.empty()) found_.note = m.message;
      return false;
    }
    // A NaN is no small error.
    if (!(m.error <= bound_)) {
      ++found_.inexact;
      return false;
    }
    return true;
  }

  // The best beside the default, with more repetitions: faster by more than the noise, or not taken. Without the time to
  // be sure the default stays, and the journal keeps what the next run begins with.
  void confirm(const Try& best) {
    const double time = budget_.to_end() + budget_.tolerance();
    if (confirmation() > time) return;
    const auto both =
        measure({{tracks_[0].kernel, {}}, best},
                (3 * confirmation() > budget_.left() + reserved_ ? 1 : 3) * request_.repetitions);
    if (both[0].status != APR_OK || !usable(both[1])) return;
    found_.base_us = both[0].microseconds;
    const double gain = both[0].microseconds - both[1].microseconds;
    if (gain <= std::max(0.01 * both[0].microseconds, both[0].spread + both[1].spread)) {
      found_.best_us = found_.base_us;
      return;
    }
    found_.best_us = both[1].microseconds;
    found_.kernel = best.kernel == tracks_[0].kernel ? "" : best.kernel->name;
    found_.params = best.params;
    found_.config = both[1].config;
  }

  // Measures, and learns what a candidate costs.
  std::vector<apr_measurement> timed(const std::vector<Try>& tries) {
    const auto start = Clock::now();
    auto results = measure(tries, request_.repetitions);
    try_cost_ = seconds_since(start) / static_cast<double>(tries.size());
    return results;
  }

  // The session's own kernel without parameters: as it is.
  std::vector<apr_measurement> measure(const std::vector<Try>& tries, uint32_t repetitions) const {
    std::vector<std::unique_ptr<Candidate>> candidates;
    std::vector<const apr_kernel_rule*> rules;
    for (const Try& one : tries) {
      const bool own = one.kernel == tracks_[0].kernel && one.params.empty();
      candidates.push_back(own ? nullptr : std::make_unique<Candidate>(one.kernel->name, one.params));
      rules.push_back(own ? nullptr : candidates.back()->rule());
    }
    std::vector<apr_measurement> results(tries.size());
    for (apr_measurement& result : results) result.struct_size = sizeof result;
    apr_error error{};
    error.struct_size = sizeof error;
    const apr_status status =
        request_.backend->measure(request_.session, spec_.index, repetitions, rules.data(),
                                  static_cast<uint32_t>(rules.size()), results.data(), &error);
    if (status == APR_OK) return results;
    if (status != APR_UNSUPPORTED)
      throw Error("backend {}: measuring {}: {}", request_.backend->name, spec_.spec, error.message);
    for (apr_measurement& result : results)
      result.status = status, std::copy_n(error.message, sizeof result.message - 1, result.message);
    return results;
  }

  const TuneRequest& request_;
  const TuneSpec& spec_;
  Budget& budget_;
  double bound_;
  TunedSpec found_;
  std::deque<Track> tracks_;  // the session's own template first
  bool cut_ = false;
  double base_cost_ = 0, try_cost_ = 0,
         reserved_ = 0;  // seconds: of a candidate that is there, and of a new one
};

}  // namespace

TuneOutcome tune(const TuneRequest& request) {
  const apr_backend& backend = *request.backend;
  if (backend.struct_size < offsetof(apr_backend, measure) + sizeof backend.measure ||
      backend.measure == nullptr)
    throw Error("backend {} cannot measure kernels by themselves, so it cannot be tuned", backend.name);
  Budget budget(request.seconds);
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
  for (size_t i = 0; i < n; ++i) {
    const TuneSpec& spec = outcome.specs[i];
    const auto old = known.find(spec.key);
    outcome.resumed += old != known.end();
    if (old != known.end() && old->second.finished) {
      close(i, old->second);
    } else {
      open[i] = std::make_unique<Search>(request, spec, budget);
    }
  }
  // Round by round through all demands, and not one demand to its end after the other: the first round brings
  // most of what there is to gain, so a short time is best spent on first rounds.
  std::vector<bool> begun(n, false);
  for (bool again = true; again && !budget.over();) {
    again = false;
    for (size_t i = 0; i < n && !budget.over(); ++i) {
      if (open[i] == nullptr || open[i]->cut()) continue;
      // What cannot even be looked at in time is left for a next run.
      if (!begun[i] && budget.left() < budget.first_look) continue;
      if (request.progress) request.progress(done, n, outcome.specs[i], nullptr);
      TunedSpec& note = known[outcome.specs[i].key];
      if (!begun[i] && !open[i]->begin(note)) {
        close(i, note = open[i]->finish());
        continue;
      }
      begun[i] = true;
      const bool better = open[i]->round(), cut = open[i]->cut();
      const bool goes_on = better || cut;
      again |= better && !cut;
      note = goes_on ? open[i]->so_far() : open[i]->finish();
      if (!request.journal.empty()) write_journal(request.journal, request.identity, known);
      if (!goes_on) close(i, note);
    }
  }
  // What the end of the time cut short counts for this run's profile; a next run goes on from the journal.
  for (size_t i = 0; i < n; ++i) {
    if (open[i] == nullptr) continue;
    outcome.complete = false;
    if (begun[i]) close(i, open[i]->finish());
  }
  return outcome;
}

}  // namespace apr
