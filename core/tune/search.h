// The search for one demand's fastest kernel and parameters.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/tune/budget.h"
#include "core/tune/tune.h"

namespace apr {

class Search {
 public:
  // keep gets what is known after every call of the backend, for the journal.
  Search(const TuneRequest& request, const TuneSpec& spec, Budget& budget,
         std::function<void(const TunedSpec&)> keep);

  // The session's own kernel, what an earlier run measured (from; null: nothing), and other templates as they are; false
  // when nothing can be measured.
  bool begin(const TunedSpec* from);

  // One round over all parameters; true when it brought something.
  bool round();

  // Whether the time did not allow all that was to be tried.
  bool cut() const { return cut_; }

  // The best so far, not yet decided.
  TunedSpec so_far() const;

  // What counts: the best measured again beside the default. Not `finished` when there was no time for that; then it is
  // the default.
  TunedSpec finish();

 private:
  using Params = std::map<std::string, int64_t>;

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

  Track& track_of(const KernelTemplate* kernel);
  const Track& leader() const;
  bool changed(const Track& track) const { return &track != &tracks_[0] || !track.best.empty(); }
  std::string other_name(const KernelTemplate* kernel) const {
    return kernel == tracks_[0].kernel ? "" : kernel->name;
  }

  void restore(const TunedSpec& from);
  bool improve(const KernelParam& param, Track& track);
  bool confirm(const Try& best);
  bool record(const Try& one, const apr_measurement& m);

  double confirmation() const;
  void reserve();
  bool affordable(size_t tries) const;
  size_t most_at_once() const;

  std::vector<apr_measurement> timed(const std::vector<Try>& tries);
  std::vector<apr_measurement> measure(const std::vector<Try>& tries, uint32_t repetitions) const;

  const TuneRequest& request_;
  const TuneSpec& spec_;
  Budget& budget_;
  std::function<void(const TunedSpec&)> keep_;
  double bound_;
  TunedSpec found_;           // its `seconds`: of a candidate that is built
  std::deque<Track> tracks_;  // the session's own template first
  bool cut_ = false;
  double try_cost_ = 0;  // seconds that a new candidate takes
  double reserved_ = 0;  // seconds
};

}  // namespace apr
