// Gates on a loaded backend that need no second one: it is compared with itself.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "core/base/error.h"
#include "core/qa/gates.h"

namespace apr {

namespace {

// Logits of tokens at 0, 1, ...: the first `batch` of them at once, the rest one by one. [tokens][vocab]
std::vector<float> feed(Session& session, std::span<const int32_t> tokens, size_t batch, int32_t sequence,
                        uint32_t flags = 0) {
  std::vector<float> all;
  if (batch > 0) all = session.feed_all(tokens.first(batch), 0, sequence, flags);
  for (size_t i = batch; i < tokens.size(); ++i) {
    const std::vector<float> row =
        session.feed(tokens.subspan(i, 1), static_cast<int32_t>(i), sequence, flags);
    all.insert(all.end(), row.begin(), row.end());
  }
  return all;
}

// Compared as bits: a NaN equals itself, and 0 is not -0.
size_t unequal(const std::vector<float>& a, const std::vector<float>& b) {
  size_t n = a.size() == b.size() ? 0 : std::max(a.size(), b.size());
  for (size_t i = 0; n < a.size() && i < a.size() && i < b.size(); ++i)
    n += std::bit_cast<uint32_t>(a[i]) != std::bit_cast<uint32_t>(b[i]) ? 1 : 0;
  return n;
}

bool finite(const std::vector<float>& values) {
  return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
}

// Other tokens than `tokens` at every position, and more of them.
std::vector<int32_t> others(const std::vector<int32_t>& tokens, const Session& session) {
  std::vector<int32_t> out;
  const size_t n = std::min<size_t>({tokens.size() + 8, session.context(), session.batch()});
  for (size_t i = 0; i < n; ++i) {
    const auto token = static_cast<uint64_t>(tokens[tokens.size() - 1 - i % tokens.size()]);
    out.push_back(static_cast<int32_t>((token * 7 + 13 + i) % session.vocab()));
  }
  return out;
}

}  // namespace

QaResult gate_load(QaSubject& subject) {
  QaBackend& backend = subject.backend();
  Session& session = *backend.session;
  // Some steps of every kind, or "after load" would be over before it began.
  const std::vector<int32_t> tokens = subject.prompt();
  (void)feed(session, tokens, tokens.size() / 2, 0);
  (void)session.feed_argmax(tokens, 0);
  const apr_session_info info = session.info();
  QaResult result{QaVerdict::Pass, "choices and compilations after load", 0.0, 0.0, "", {}};
  result.value = static_cast<double>(info.dispatches_after_load + info.compiles_after_load);
  result.text = fmt::format("{}: {} kernels in {:.2f} s, {} compiled", backend.device->info().name,
                            info.n_kernels, info.load_seconds, info.kernels_compiled);
  if (*result.value > 0) {
    result.verdict = QaVerdict::Fail;
    result.text = fmt::format("{} choices by type and {} compilations after load", info.dispatches_after_load,
                              info.compiles_after_load);
  }
  return result;
}

QaResult gate_isolation(QaSubject& subject) {
  Session& session = *subject.backend().session;
  const std::vector<int32_t> a = subject.prompt(), b = others(a, session);
  const size_t half = a.size() / 2;
  const std::vector<float> first = feed(session, a, half, 0);
  (void)feed(session, b, b.size() / 2, 0);
  const std::vector<float> again = feed(session, a, half, 0);
  // Beside it: another sequence grows between the steps of this one.
  std::vector<float> beside = session.feed_all(std::span(a).first(half), 0, 0);
  (void)session.feed_all(std::span(b).first(b.size() / 2), 0, 1);
  for (size_t i = half; i < a.size(); ++i) {
    const std::vector<float> row = session.feed(std::span(a).subspan(i, 1), static_cast<int32_t>(i), 0);
    beside.insert(beside.end(), row.begin(), row.end());
    const size_t at = b.size() / 2 + i - half;
    if (at < b.size()) (void)session.feed(std::span(b).subspan(at, 1), static_cast<int32_t>(at), 1);
  }
  const size_t after = unequal(first, again), next_to = unequal(first, beside);
  QaResult result{
      QaVerdict::Pass, "logits whose bits differ", static_cast<double>(after + next_to), 0.0, "", {}};
  result.text = fmt::format("{} tokens after and beside {} others", a.size(), b.size());
  if (!finite(first)) throw NotRunnable("the logits are not finite: there is nothing to compare");
  if (after + next_to == 0) return result;
  result.verdict = QaVerdict::Fail;
  result.text = fmt::format(
      "of {} logits, {} change when other tokens came before, {} when another sequence grows beside: "
      "something "
      "is read that this text did not write",
      first.size(), after, next_to);
  return result;
}

QaResult gate_graph(QaSubject& subject) {
  Session& session = *subject.backend().session;
  if (session.info().n_graphs == 0)
    throw NotRunnable(fmt::format("backend {} captured no graph", session.backend().name));
  const std::vector<int32_t> tokens = subject.prompt();
  const std::vector<float> eager = feed(session, tokens, 0, 0, APR_STEP_NO_GRAPH);
  const std::vector<float> graph = feed(session, tokens, 0, 0);
  // Greedy generation has graphs of its own, which keep the logits on the device.
  constexpr size_t kGreedy = 16;
  const auto greedy = [&](uint32_t flags) {
    std::vector<int32_t> ids = {session.feed_argmax(tokens, 0)};
    while (ids.size() < kGreedy && tokens.size() + ids.size() < session.context())
      ids.push_back(session.feed_argmax({&ids.back(), 1},
                                        static_cast<int32_t>(tokens.size() + ids.size() - 1), 0, flags));
    return ids;
  };
  const std::vector<int32_t> alone = greedy(APR_STEP_NO_GRAPH), replayed = greedy(APR_STEP_GREEDY);
  const size_t bits = unequal(eager, graph);
  QaResult result{QaVerdict::Pass, "logits whose bits differ", static_cast<double>(bits), 0.0, "", {}};
  result.text = fmt::format("{} tokens, and {} generated ones", tokens.size(), alone.size());
  if (bits > 0) {
    result.verdict = QaVerdict::Fail;
    result.text = fmt::format(
        "{} of {} logits have other bits through the graph; APR_NO_GRAPH=1 runs without", bits, eager.size());
  } else if (alone != replayed) {
    const auto at = std::mismatch(alone.begin(), alone.end(), replayed.begin()).first - alone.begin();
    result.verdict = QaVerdict::Fail;
    result.text = fmt::format("greedy text through the graph differs from generated token {} on", at);
  }
  return result;
}

QaResult gate_prefill(QaSubject& subject) {
  QaBackend& backend = subject.backend();
  Session& session = *backend.session;
  const std::vector<int32_t> tokens = subject.prompt();
  const std::vector<float> batch = feed(session, tokens, tokens.size(), 0);
  const std::vector<float> single = feed(session, tokens, 0, 0);
  QaResult result{QaVerdict::Pass, "worst nmse", 0.0, {}, "", {}};
  // Two computations of one backend: each may round as it is allowed to.
  result.bound = parity_tolerance(*backend.plan, backend.precise, backend.precise);
  size_t worst = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const double nmse =
        logits_nmse(single.data() + i * session.vocab(), batch.data() + i * session.vocab(), session.vocab());
    if (!(nmse <= *result.value)) result.value = nmse, worst = i;
  }
  result.text = fmt::format("{} positions, worst at {}", tokens.size(), worst);
  if (!(*result.value <= *result.bound)) {
    result.verdict = QaVerdict::Fail;
    result.text = fmt::format(
        "position {}: the prompt as a batch and token by token are too far apart; `aprctl parity --bisect` "
        "names the stage",
        worst);
  }
  return result;
}

}  // namespace apr
