#include "core/tune/search.h"

#include <algorithm>
#include <memory>

#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/tune/measure.h"

namespace apr {

namespace {

// One candidate as the rule that would choose it.
struct Candidate {
  explicit Candidate(const std::string& kernel, const std::map<std::string, int64_t>& params)
      : kernel_(kernel), params_(params) {
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
  std::map<std::string, int64_t> params_;
  std::vector<apr_rule_value> values_;
  apr_kernel_rule rule_{};
};

}  // namespace

Search::Search(const TuneRequest& request, const TuneSpec& spec, Budget& budget,
               std::function<void(const TunedSpec&)> keep)
    : request_(request), spec_(spec), budget_(budget), keep_(std::move(keep)) {
  found_.key = spec.key;
  const KernelTemplate* own = find_template(request.templates, spec.kernel);
  bound_ = own->view == "int" ? request.int8_bound : request.float_bound;
  tracks_.push_back({own, {}, 0, {}});
}

bool Search::begin(const TunedSpec* from) {
  if (from) {
    restore(*from);
  } else {
    const auto start = Clock::now();
    const auto base = measure({{tracks_[0].kernel, {}}}, request_.repetitions);
    found_.seconds = try_cost_ = budget_.first_look = seconds_since(start);
    if (base[0].status != APR_OK) {
      found_.note = base[0].message;
      return false;
    }
    found_.base_us = found_.best_us = tracks_[0].us = base[0].microseconds;
    found_.config = base[0].config;
    keep_(so_far());
  }
  std::vector<Try> tries;
  for (const std::string& name : spec_.others) {
    const KernelTemplate* other = find_template(request_.templates, name);
    if (!track_of(other).seen[{}]) tries.push_back({other, {}});
  }
  for (size_t at = 0; at < tries.size();) {
    const size_t n = std::min(tries.size() - at, most_at_once());
    if (!affordable(n)) return cut_ = true;
    const std::vector<Try> now(tries.begin() + static_cast<std::ptrdiff_t>(at),
                               tries.begin() + static_cast<std::ptrdiff_t>(at + n));
    const auto results = timed(now);
    for (size_t i = 0; i < n; ++i) {
      Track& track = track_of(now[i].kernel);
      // A template that is made for this and cannot do it here is no failure.
      if (results[i].status != APR_OK) {
        track.seen[{}] = true;
        found_.tries.push_back({now[i].kernel->name, {}, 0});
      } else if (record(now[i], results[i])) {
        track.us = results[i].microseconds;
      }
    }
    reserve();
    keep_(so_far());
    at += n;
  }
  return true;
}

// Times of another hour are good enough to go on from: the best of them is measured again beside every new candidate, and
// beside the default at the end.
void Search::restore(const TunedSpec& from) {
  found_ = from;
  found_.finished = true;
  // What is not yet decided is the default.
  found_.kernel.clear(), found_.params.clear(), found_.best_us = from.base_us;
  try_cost_ = from.seconds;
  tracks_[0].us = from.base_us;
  for (const TunedTry& one : from.tries) {
    const KernelTemplate* kernel =
        one.kernel.empty() ? tracks_[0].kernel : find_template(request_.templates, one.kernel);
    if (kernel == nullptr) continue;
    Track& track = track_of(kernel);
    track.seen[one.params] = true;
    if (one.us > 0 && (track.us == 0 || one.us < track.us)) track.best = one.params, track.us = one.us;
  }
  // Which was the best is known: it was measured more than once, and one lucky run of another does not count.
  const KernelTemplate* kernel =
      from.kernel.empty() ? tracks_[0].kernel : find_template(request_.templates, from.kernel);
  if (kernel != nullptr) {
    Track& track = track_of(kernel);
    track.best = from.params, track.us = from.best_us;
  }
  reserve();
}

TunedSpec Search::so_far() const {
  TunedSpec state = found_;
  const Track& best = leader();
  state.kernel = other_name(best.kernel), state.params = best.best, state.best_us = best.us;
  state.finished = false;
  return state;
}

bool Search::round() {
  // Templates that are far behind do not catch up by their parameters.
  constexpr double kHopeless = 1.5;
  bool better = false;
  for (Track& track : tracks_)
    for (const KernelParam& param : track.kernel->params) {
      if (budget_.over()) return cut_ = true, better;
      // One without a time could not be used as it is.
      if (track.us > 0 && track.us <= kHopeless * leader().us) better |= improve(param, track);
    }
  return better;
}

TunedSpec Search::finish() {
  if (const Track& best = leader(); changed(best)) found_.finished = confirm({best.kernel, best.best});
  budget_.reserved -= reserved_, reserved_ = 0;
  return found_;
}

Search::Track& Search::track_of(const KernelTemplate* kernel) {
  for (Track& track : tracks_)
    if (track.kernel == kernel) return track;
  return tracks_.emplace_back(Track{kernel, {}, 0, {}});
}

const Search::Track& Search::leader() const {
  const Track* best = &tracks_[0];
  for (const Track& track : tracks_)
    if (track.us > 0 && track.us < best->us) best = &track;
  return *best;
}

// What the last measurement takes at least: two kernels, with three times the repetitions where there is time for them. A
// machine that has become busier since the first look shows in what candidates take, which may be the compiler, too.
double Search::confirmation() const { return 2 * std::clamp(try_cost_, found_.seconds, 2 * found_.seconds); }

void Search::reserve() {
  const double needed = changed(leader()) ? confirmation() : 0;
  budget_.reserved += needed - reserved_, reserved_ = needed;
}

// With what its confirmation would take, should it be the first that brings something.
bool Search::affordable(size_t tries) const {
  return !budget_.stopped() &&
         budget_.left() - (confirmation() - reserved_) >= static_cast<double>(tries) * try_cost_;
}

// Candidates of one call: at least one beside the best.
size_t Search::most_at_once() const {
  if (try_cost_ <= 0) return 2;
  return std::max<size_t>(2, static_cast<size_t>(std::min(budget_.longest_call() / try_cost_, 1e6)));
}

// All values of one parameter, the others as they are; true when one is faster.
bool Search::improve(const KernelParam& param, Track& track) {
  std::vector<Params> fresh;
  for (const int64_t value : param.values) {
    Params next = track.best;
    next[param.name] = value;
    if (next != track.best && !track.seen[next]) fresh.push_back(std::move(next));
  }
  bool better = false;
  for (size_t at = 0; at < fresh.size();) {
    // As many as there is time for.
    size_t n = std::min(fresh.size() - at, most_at_once() - 1);
    while (n > 0 && !affordable(1 + n)) --n;
    if (n == 0) return cut_ = true, better;
    // The best again, under the conditions of the others.
    std::vector<Try> tries = {{track.kernel, track.best}};
    for (size_t i = 0; i < n; ++i) tries.push_back({track.kernel, fresh[at + i]});
    const auto results = timed(tries);
    if (results[0].status == APR_OK) track.us = results[0].microseconds;
    for (size_t i = 1; i < tries.size(); ++i)
      // A step of the search may be small; whether it was real is decided at the end.
      if (record(tries[i], results[i]) && results[i].microseconds < 0.995 * track.us)
        track.best = tries[i].params, track.us = results[i].microseconds, better = true;
    reserve();
    keep_(so_far());
    at += n;
  }
  return better;
}

// Notes that a candidate was measured; false when it cannot be used.
bool Search::record(const Try& one, const apr_measurement& m) {
  ++found_.tried;
  track_of(one.kernel).seen[one.params] = true;
  bool usable = true;
  if (m.status != APR_OK) {
    ++found_.failed;
    if (found_.note.empty()) found_.note = m.message;
    usable = false;
  } else if (!(m.error <= bound_)) {  // a NaN is no small error
    ++found_.inexact;
    usable = false;
  }
  found_.tries.push_back({other_name(one.kernel), one.params, usable ? m.microseconds : 0});
  return usable;
}

// The best beside the default, with more repetitions: faster by more than the noise, or not taken. Its time was set aside;
// where something else took of it, it may begin until the tolerance is over. False without the time to be sure: the
// default stays, and the journal keeps what the next run begins with.
bool Search::confirm(const Try& best) {
  if (budget_.stopped() || budget_.to_end() + budget_.tolerance() <= 0) return false;
  const auto both = measure({{tracks_[0].kernel, {}}, best},
                            (3 * confirmation() > budget_.left() + reserved_ ? 1 : 3) * request_.repetitions);
  if (both[0].status != APR_OK || both[1].status != APR_OK || !(both[1].error <= bound_)) return true;
  found_.base_us = both[0].microseconds;
  const double gain = both[0].microseconds - both[1].microseconds;
  if (gain <= std::max(0.01 * both[0].microseconds, both[0].spread + both[1].spread)) {
    found_.best_us = found_.base_us;
    return true;
  }
  found_.best_us = both[1].microseconds;
  found_.kernel = other_name(best.kernel);
  found_.params = best.params;
  found_.config = both[1].config;
  return true;
}

// Measures, and learns what a candidate costs. One cheap call does not make the next one cheap.
std::vector<apr_measurement> Search::timed(const std::vector<Try>& tries) {
  const auto start = Clock::now();
  auto results = measure(tries, request_.repetitions);
  const double cost = seconds_since(start) / static_cast<double>(tries.size());
  try_cost_ = std::max(cost, (try_cost_ + cost) / 2);
  return results;
}

// The session's own kernel without parameters: as it is.
std::vector<apr_measurement> Search::measure(const std::vector<Try>& tries, uint32_t repetitions) const {
  std::vector<std::unique_ptr<Candidate>> candidates;
  std::vector<const apr_kernel_rule*> rules;
  for (const Try& one : tries) {
    const bool own = one.kernel == tracks_[0].kernel && one.params.empty();
    candidates.push_back(own ? nullptr : std::make_unique<Candidate>(one.kernel->name, one.params));
    rules.push_back(own ? nullptr : candidates.back()->rule());
  }
  return measure_candidates(*request_.backend, request_.session, spec_.index, spec_.spec, repetitions, rules);
}

}  // namespace apr
