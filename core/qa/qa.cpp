#include "core/qa/qa.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/hf/open_model.h"
#include "core/qa/gates.h"

namespace apr {

namespace {

constexpr std::array kGates = {
    QaGate{"header", "the file is whole, and every tensor is what the architecture demands", gate_header},
    QaGate{"metadata", "hyper-parameters and token ids are such as models have", gate_metadata},
    QaGate{"tokenizer", "texts and every printable token survive encoding and decoding", gate_tokenizer},
    QaGate{"weights", "every block of every tensor decodes to finite numbers", gate_weights},
    QaGate{"load", "the backend loads the model, and chooses and compiles nothing afterwards", gate_load},
    QaGate{"golden", "greedy text is the one that is recorded beside the model", gate_golden},
    QaGate{"parity", "the backend computes what the reference computes", gate_parity},
    QaGate{"isolation", "other tokens before or beside a text change no bit of its logits", gate_isolation},
    QaGate{"graph", "the captured graph gives the bits of its kernels launched one by one", gate_graph},
    QaGate{"prefill", "a prompt as one batch agrees with the same tokens one by one", gate_prefill},
    QaGate{"formats", "the same weights in another file give the same logits (--other)", gate_formats},
    QaGate{"speed", "decoding takes no longer than memory and launches explain", gate_speed},
    QaGate{"regression", "decoding is as fast as in the last report", gate_regression},
    QaGate{"cache", "every compiled kernel on disk has its checksum", gate_cache},
};

// The gate's own prompt: its text has punctuation, digits and a question, as users' texts do.
constexpr const char* kPrompt =
    "The keeper climbed the stairs at dusk, trimmed the wick, and wrote in the log: wind north-west, 14 "
    "knots; two ships passed, one of them Danish. Why had the third not come?";
constexpr size_t kPromptTokens = 24;

// Opens once: the first failure is thrown as it is, later calls tell of it.
template <typename T, typename Open>
T& once(std::optional<T>& slot, std::string& failure, const char* what, const Open& open) {
  if (slot) return *slot;
  if (!failure.empty()) throw NotRunnable(what);
  try {
    slot.emplace(open());
  } catch (const std::exception& error) {
    failure = error.what();
    throw;
  }
  return *slot;
}

}  // namespace

const char* to_string(QaVerdict verdict) {
  switch (verdict) {
    case QaVerdict::Pass:
      return "pass";
    case QaVerdict::Fail:
      return "fail";
    case QaVerdict::NotRun:
      return "not-run";
  }
  return "?";
}

std::span<const QaGate> qa_gates() { return kGates; }

const Model& QaSubject::model() {
  return once(model_, model_failure_, "the model could not be opened: see gate header",
              [&] { return open_model(request_.model); });
}

const Tokenizer& QaSubject::tokenizer() {
  return *once(tokenizer_, tokenizer_failure_, "there is no tokenizer: see gate tokenizer",
               [&] { return make_tokenizer(model().meta); });
}

QaBackend& QaSubject::backend() {
  return once(backend_, backend_failure_, "the backend has not loaded the model: see gate load", [&] {
    (void)model();
    return request_.load();
  });
}

std::vector<int32_t> QaSubject::prompt() {
  Session& session = *backend().session;
  std::vector<int32_t> ids = tokenizer().encode(kPrompt);
  ids.resize(std::min({ids.size(), kPromptTokens, size_t{session.context()}, size_t{session.batch()}}));
  if (ids.size() < 2)
    throw NotRunnable(fmt::format("a context of {} and batches of {} leave no room for a prompt",
                                  session.context(), session.batch()));
  return ids;
}

QaOutcome run_gate(const QaGate& gate, QaSubject& subject) {
  const auto start = Clock::now();
  QaOutcome outcome{&gate, {}, 0};
  try {
    outcome.result = gate.run(subject);
  } catch (const NotRunnable& reason) {
    outcome.result = {QaVerdict::NotRun, "", {}, {}, reason.what(), {}};
  } catch (const std::exception& error) {
    outcome.result = {QaVerdict::Fail, "", {}, {}, error.what(), {}};
  }
  outcome.seconds = seconds_since(start);
  return outcome;
}

QaSummary summarise(std::span<const QaOutcome> outcomes, size_t min_executed) {
  QaSummary summary{true, 0, 0, 0, ""};
  for (const QaOutcome& outcome : outcomes) {
    switch (outcome.result.verdict) {
      case QaVerdict::Pass:
        ++summary.passed;
        break;
      case QaVerdict::Fail:
        ++summary.failed;
        summary.reason += fmt::format("{}{}", summary.reason.empty() ? "failed: " : ", ", outcome.gate->name);
        break;
      case QaVerdict::NotRun:
        ++summary.not_run;
        break;
    }
  }
  const size_t executed = summary.passed + summary.failed;
  if (executed < min_executed)
    summary.reason += fmt::format("{}{} gates were run, and {} were asked for",
                                  summary.reason.empty() ? "" : "; ", executed, min_executed);
  summary.pass = summary.reason.empty();
  return summary;
}

}  // namespace apr
