// Gates on the speed of decoding.
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <set>

#include "core/base/clock.h"
#include "core/qa/gates.h"

namespace apr {

namespace {

constexpr uint32_t kTokens = 32;
constexpr int kRepetitions =
    4;  // the first warms up; the best of the others is what undisturbed hardware does
constexpr double kLaunch = 20e-6;  // seconds: more than the launch of a kernel or a barrier of threads takes

uint32_t launches_of_one_token(Session& session) {
  std::set<uint32_t> launches;
  for (const apr_kernel_info& kernel : session.kernels())
    if (kernel.m_min <= 1 && kernel.m_max >= 1) launches.insert(kernel.launch);
  return static_cast<uint32_t>(launches.size());
}

}  // namespace

QaResult gate_speed(QaSubject& subject) {
  QaBackend& backend = subject.backend();
  Session& session = *backend.session;
  const uint32_t n = std::min(kTokens, session.context());
  double best = std::numeric_limits<double>::infinity();
  for (int r = 0; r < kRepetitions; ++r) {
    const auto start = Clock::now();
    for (uint32_t i = 0; i < n; ++i) {
      const auto token = static_cast<int32_t>((uint64_t{i} * 7919 + 11) % session.vocab());
      (void)session.feed_argmax({&token, 1}, static_cast<int32_t>(i));
    }
    const double seconds = seconds_since(start);
    if (r > 0) best = std::min(best, seconds / n);
  }
  subject.tokens_per_second = 1 / best;
  const apr_session_info info = session.info();
  const double gbs = backend.device->measure_bandwidth();
  const double bytes =
      static_cast<double>(info.token_bytes) + static_cast<double>(info.kv_token_bytes) * 0.5 * n;
  const double floor = bytes / (gbs * 1e9);
  const uint32_t launches = launches_of_one_token(session);
  QaResult result{QaVerdict::Pass, "ms per token", 1e3 * best, {}, "", {}};
  // A model that is read in no time is bound by launches.
  result.bound = 1e3 * (floor / subject.request().min_share + launches * kLaunch);
  result.text =
      fmt::format("{:.1f} tok/s, {:.0f}% of what {:.1f} GB/s allow", 1 / best, 100 * floor / best, gbs);
  result.details.push_back(
      fmt::format("floor {:.3g} ms; the bound is floor / {:g} and {:g} us for each of {} launches",
                  1e3 * floor, subject.request().min_share, 1e6 * kLaunch, launches));
  if (!(*result.value <= *result.bound)) {
    result.verdict = QaVerdict::Fail;
    result.text += "; is anything else running? `aprctl kernels explain --run` shows where the time goes";
  }
  return result;
}

QaResult gate_regression(QaSubject& subject) {
  QaBackend& backend = subject.backend();
  if (!subject.tokens_per_second) throw NotRunnable("the speed gate gave no figure");
  std::string why_not = "no earlier report";
  const std::optional<QaBaseline> last =
      subject.request().baseline ? subject.request().baseline(backend, why_not) : std::nullopt;
  if (!last) throw NotRunnable(why_not);
  const double now = *subject.tokens_per_second;
  QaResult result{QaVerdict::Pass, "tok/s", now, {}, "", {}};
  result.bound = last->tokens_per_second * (1 - subject.request().regression);
  result.text = fmt::format("{:.1f} tok/s; {:.1f} in the last report", now, last->tokens_per_second);
  result.details.push_back(last->origin);
  if (now < *result.bound) {
    result.verdict = QaVerdict::Fail;
    result.text += fmt::format(": {:.0f}% slower, and {:.0f}% are allowed",
                               100 * (1 - now / last->tokens_per_second), 100 * subject.request().regression);
  }
  return result;
}

}  // namespace apr
