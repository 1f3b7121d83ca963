// How gates become one verdict. What single gates find is tested through `aprctl qa` with models broken on purpose.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "core/qa/qa.h"

#include <doctest/doctest.h>

#include <set>
#include <string>

#include "core/base/error.h"

using namespace apr;

namespace {

QaOutcome outcome(const QaGate& gate, QaVerdict verdict) {
  QaOutcome o{&gate, {}, 0};
  o.result.verdict = verdict;
  return o;
}

QaRequest absent() {
  QaRequest request;
  request.model = "/no/such/model.gguf";
  return request;
}

}  // namespace

TEST_CASE("gates have names of their own and say what they judge") {
  std::set<std::string_view> names;
  for (const QaGate& gate : qa_gates()) {
    CHECK(names.insert(gate.name).second);
    CHECK_FALSE(gate.meaning.empty());
    CHECK((gate.run != nullptr));
  }
  CHECK(names.size() == 14);
}

TEST_CASE("whatever a gate throws is its result, and nothing thrown is a pass") {
  QaSubject subject{absent()};
  const QaGate not_run{"a", "", [](QaSubject&) -> QaResult { throw NotRunnable("no device"); }};
  const QaGate fails{"b", "", [](QaSubject&) -> QaResult { throw Error("tensor x is damaged"); }};
  const QaGate other{"c", "", [](QaSubject&) -> QaResult { throw std::runtime_error("no memory"); }};
  CHECK(run_gate(not_run, subject).result.verdict == QaVerdict::NotRun);
  CHECK(run_gate(not_run, subject).result.text == "no device");
  CHECK(run_gate(fails, subject).result.verdict == QaVerdict::Fail);
  CHECK(run_gate(fails, subject).result.text == "tensor x is damaged");
  CHECK(run_gate(other, subject).result.verdict == QaVerdict::Fail);
  const QaGate silent{"d", "", [](QaSubject&) { return QaResult{}; }};
  CHECK(run_gate(silent, subject).result.verdict == QaVerdict::NotRun);
}

TEST_CASE("the first gate that needs what is not there fails, and the others are not run") {
  QaSubject subject{absent()};
  const QaGate needs{"needs", "", [](QaSubject& s) {
                       (void)s.model();
                       return QaResult{QaVerdict::Pass, "", {}, {}, "", {}};
                     }};
  const QaOutcome first = run_gate(needs, subject), second = run_gate(needs, subject);
  CHECK(first.result.verdict == QaVerdict::Fail);
  CHECK(first.result.text.find("/no/such/model.gguf") != std::string::npos);
  CHECK(second.result.verdict == QaVerdict::NotRun);
  CHECK(second.result.text.find("header") != std::string::npos);
}

TEST_CASE("one failure is a failure; too few gates are one too; what was not run counts for nothing") {
  const std::span<const QaGate> gates = qa_gates();
  const std::vector<QaOutcome> good = {outcome(gates[0], QaVerdict::Pass),
                                       outcome(gates[1], QaVerdict::NotRun)};
  CHECK(summarise(good, 1).pass);
  CHECK(summarise(good, 1).not_run == 1);
  CHECK_FALSE(summarise(good, 2).pass);
  CHECK(summarise(good, 2).reason == "1 gates were run, and 2 were asked for");
  const std::vector<QaOutcome> bad = {outcome(gates[0], QaVerdict::Pass), outcome(gates[1], QaVerdict::Fail)};
  CHECK_FALSE(summarise(bad, 1).pass);
  CHECK(summarise(bad, 2).reason == "failed: metadata");
  CHECK_FALSE(summarise({}, 1).pass);
}
