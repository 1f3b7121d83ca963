#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/tune/tune.h"

namespace apr {

namespace {

using Clock = std::chrono::steady_clock;
using Params = std::map<std::string, int64_t>;

std::string text(const char* t) { return t == nullptr ? "" : t; }

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

class Search {
 public:
  Search(const TuneRequest& request, const TuneSpec& spec, const KernelTemplate& kernel,
         Clock::time_point end)
      : request_(request),
        spec_(spec),
        kernel_(kernel),
        end_(end),
        bound_(kernel.view == "int" ? request.int8_bound : request.float_bound) {
    found_.key = spec.key;
  }

  // The session's own kernel, and the best of an earlier run; false when nothing can be measured.
  bool begin(const Params& from) {
    std::vector<Params> tries = {{}};
    if (!from.empty()) tries.push_back(from);
    const auto base = measure(tries, request_.repetitions);
    if (base[0].status != APR_OK) {
      found_.note = base[0].message;
      return false;
    }
    found_.base_us = found_.best_us = best_us_ = base[0].microseconds;
    found_.config = base[0].config;
    if (!from.empty() && usable(base[1]) && base[1].microseconds < best_us_)
      best_ = from, best_us_ = base[1].microseconds;
    return true;
  }

  // For the journal, between rounds.
  TunedSpec so_far() const {
    TunedSpec state = found_;
    state.params = best_, state.best_us = best_us_, state.finished = false;
    return state;
  }

  // One round over all parameters; true when it brought something.
  bool round() {
    bool better = false;
    for (const KernelParam& param : kernel_.params) {
      if (over()) break;
      better |= improve(param, best_, best_us_);
    }
    return better;
  }

  TunedSpec finish() {
    if (!best_.empty()) confirm(best_);
    return found_;
  }

 private:
  bool over() const { return Clock::now() >= end_; }

  // All values of one parameter, the others as they are; true when one is faster.
  bool improve(const KernelParam& param, Params& best, double& best_us) {
    std::vector<Params> tries = {best};
    for (const int64_t value : param.values) {
      Params next = best;
      next[param.name] = value;
      if (next != best && !seen_[next]) seen_[next] = true, tries.push_back(std::move(next));
    }
    if (tries.size() == 1) return false;
    const auto results = measure(tries, request_.repetitions);
    best_us = results[0].microseconds;  // again, under the conditions of the others
    bool better = false;
    for (size_t i = 1; i < tries.size(); ++i) {
      ++found_.tried;
      if (!usable(results[i])) continue;
      // A step of the search may be small; whether it was real is decided at the end.
      if (results[i].microseconds < 0.995 * best_us)
        best = tries[i], best_us = results[i].microseconds, better = true;
    }
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

  // The best beside the default, with more repetitions: faster by more than the noise, or not taken.
  void confirm(const Params& best) {
    const auto both = measure({{}, best}, 3 * request_.repetitions);
    if (both[0].status != APR_OK || !usable(both[1])) return;
    found_.base_us = both[0].microseconds;
    const double gain = both[0].microseconds - both[1].microseconds;
    if (gain <= std::max(0.01 * both[0].microseconds, both[0].spread + both[1].spread)) {
      found_.best_us = found_.base_us;
      return;
    }
    found_.best_us = both[1].microseconds;
    found_.params = best;
    found_.config = both[1].config;
  }

  // Empty parameters: the session's own kernel.
  std::vector<apr_measurement> measure(const std::vector<Params>& tries, uint32_t repetitions) const {
    std::vector<std::unique_ptr<Candidate>> candidates;
    std::vector<const apr_kernel_rule*> rules;
    for (const Params& params : tries) {
      candidates.push_back(params.empty() ? nullptr : std::make_unique<Candidate>(spec_.kernel, params));
      rules.push_back(params.empty() ? nullptr : candidates.back()->rule());
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
  const KernelTemplate& kernel_;
  Clock::time_point end_;
  double bound_;
  TunedSpec found_;
  Params best_;  // that differ from the session's
  double best_us_ = 0;
  std::map<Params, bool> seen_;
};

}  // namespace

std::vector<TuneSpec> tune_specs(const TuneRequest& request) {
  apr_error error{};
  error.struct_size = sizeof error;
  apr_session_info info{};
  info.struct_size = sizeof info;
  if (request.backend->session_info(request.session, &info, &error) != APR_OK)
    throw Error("backend {}: {}", request.backend->name, error.message);
  std::map<std::string, const apr_weight*> weights;
  for (uint32_t i = 0; i < request.plan->n_weights; ++i)
    weights[request.plan->weights[i]->name] = request.plan->weights[i];
  struct Entry {
    apr_kernel_info kernel;
    uint32_t index;
  };
  std::map<uint32_t, std::vector<Entry>> launches;  // in the session's order
  uint32_t most = 0;
  for (uint32_t i = 0; i < info.n_kernels; ++i) {
    apr_kernel_info k{};
    k.struct_size = sizeof k;
    if (request.backend->kernel(request.session, i, &k, &error) != APR_OK)
      throw Error("backend {}: {}", request.backend->name, error.message);
    most = std::max(most, k.m_max);
    launches[k.launch].push_back({k, i});
  }
  std::vector<TuneSpec> specs;
  std::map<std::string, size_t> by_key;
  for (const auto& [number, entries] : launches) {
    const apr_kernel_info& first = entries[0].kernel;
    if (std::find(request.ops.begin(), request.ops.end(), text(first.op)) == request.ops.end()) continue;
    if (!request.all_tokens && first.m_min > 1 && first.m_max < most) continue;
    const KernelTemplate* kernel = find_template(request.templates, text(first.kernel));
    if (kernel == nullptr || kernel->params.empty()) continue;
    std::string key = fmt::format("{} | {}", text(first.spec), text(first.kernel));
    std::vector<TuneSpec::Tensor> tensors;
    uint64_t bytes = 0;
    for (const Entry& e : entries) {
      key += fmt::format(" {}", text(e.kernel.layout));
      bytes += e.kernel.bytes;
      const auto weight = weights.find(text(e.kernel.weight));
      if (weight != weights.end())
        tensors.push_back(
            {weight->first, text(weight->second->role), text(e.kernel.format), e.kernel.n, e.kernel.k});
    }
    if (tensors.empty()) continue;
    const auto [at, fresh] = by_key.emplace(key, specs.size());
    if (fresh)
      specs.push_back({key,
                       text(first.spec),
                       text(first.kernel),
                       entries[0].index,
                       first.m_min,
                       first.m_max,
                       first.m_max >= most,
                       {},
                       bytes});
    specs[at->second].launches.push_back(std::move(tensors));
  }
  std::stable_sort(specs.begin(), specs.end(), [](const TuneSpec& a, const TuneSpec& b) {
    if ((a.m_min == 1) != (b.m_min == 1)) return a.m_min == 1;
    return a.bytes * a.launches.size() > b.bytes * b.launches.size();
  });
  return specs;
}

TuneOutcome tune(const TuneRequest& request) {
  const apr_backend& backend = *request.backend;
  if (backend.struct_size < offsetof(apr_backend, measure) + sizeof backend.measure ||
      backend.measure == nullptr)
    throw Error("backend {} cannot measure kernels by themselves, so it cannot be tuned", backend.name);
  const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                      std::chrono::duration<double>(request.seconds));
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
      open[i] = std::make_unique<Search>(request, spec, *find_template(request.templates, spec.kernel), end);
    }
  }
  // Round by round through all demands, and not one demand to its end after the other: the first round brings
  // most of what there is to gain, so a short time is best spent on first rounds.
  std::vector<bool> begun(n, false);
  for (bool again = true; again && Clock::now() < end;) {
    again = false;
    for (size_t i = 0; i < n && Clock::now() < end; ++i) {
      if (open[i] == nullptr) continue;
      if (request.progress) request.progress(done, n, outcome.specs[i], nullptr);
      TunedSpec& note = known[outcome.specs[i].key];
      if (!begun[i] && !open[i]->begin(note.params)) {
        close(i, note = open[i]->finish());
        continue;
      }
      begun[i] = true;
      const bool goes_on = open[i]->round() || Clock::now() >= end;  // the end of the time cuts a round short
      again |= goes_on;
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
