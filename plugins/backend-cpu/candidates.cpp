#include "candidates.h"

#include <algorithm>
#include <limits>

namespace apr::cpu {

void find_candidates(const float* logits, uint32_t n, bool has_nan, uint32_t k, apr_candidate* best) {
  if (has_nan) {
    std::fill_n(best, k, apr_candidate{std::numeric_limits<float>::quiet_NaN(), -1});
    return;
  }
  const auto before = [](const apr_candidate& a, const apr_candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  };
  for (uint32_t i = 0; i < k; ++i) best[i] = {logits[i], static_cast<int32_t>(i)};
  std::make_heap(best, best + k, before);  // the last of them in front
  for (uint32_t i = k; i < n; ++i) {
    if (!(logits[i] > best[0].logit)) continue;  // an equal one has a higher index
    std::pop_heap(best, best + k, before);
    best[k - 1] = {logits[i], static_cast<int32_t>(i)};
    std::push_heap(best, best + k, before);
  }
  std::sort_heap(best, best + k, before);
}

}  // namespace apr::cpu
