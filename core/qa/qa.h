// One verdict on a model and a backend, from gates that judge one thing each. A gate passes, fails, or could not
// be run; what could not be run is never counted as passed, and its reason is told.
//
// The gates are a table (qa_gates()). A gate gets a QaSubject, which opens what gates need when the first of them
// asks for it: the gate whose business a failure is reports it, and every other gate that needed the same thing
// is not run.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "core/gate/parity.h"
#include "core/model/model.h"
#include "core/plugin/catalog.h"
#include "core/runtime/session.h"
#include "core/text/tokenizer.h"

namespace apr {

enum class QaVerdict { Pass, Fail, NotRun };
const char* to_string(QaVerdict verdict);  // "pass", "fail", "not-run"

struct QaResult {
  QaVerdict verdict = QaVerdict::NotRun;
  std::string what;             // that value and bound are of, with the unit: "worst nmse", "ms per token"
  std::optional<double> value;  // what was found
  std::optional<double> bound;  // what it may be
  std::string text;             // one line: what was judged; of a failure what and where; why it was not run
  std::vector<std::string> details;  // further findings, one line each
};

// A backend with the model loaded. Belongs to whoever gave it.
struct QaBackend {
  Device* device;
  Session* session;  // n_sequences >= 2
  const apr_plan* plan;
  bool precise;
};

// Decode speed of an earlier report of the same model on the same device.
struct QaBaseline {
  std::string origin;  // the report's file
  double tokens_per_second;
};

struct QaRequest {
  std::string model;  // path
  std::string other;  // path of the same weights in another format, "" for none
  Catalog* catalog = nullptr;
  std::function<QaBackend()> load;  // the model on the backend; called at most once
  std::function<QaBackend(const std::string&)> load_other;
  std::function<ParityReport()> parity;  // the loaded backend against its reference
  std::string reference;                 // what parity compares with: "cpu:precise"
  std::string kernel_cache;              // folder, "" for none
  std::function<std::optional<QaBaseline>(const QaBackend&, std::string& why_not)> baseline;
  double min_share = 0.25;   // of the measured bandwidth, that decoding reaches at least
  double regression = 0.15;  // share of an earlier speed that may be lost
};

// A gate cannot be run; the message says why.
struct NotRunnable : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class QaSubject {
 public:
  explicit QaSubject(QaRequest request) : request_(std::move(request)) {}

  const QaRequest& request() const { return request_; }
  // These open what is not open yet. The first call throws what went wrong (apr::Error); later ones throw
  // NotRunnable, which names that failure.
  const Model& model();
  const Tokenizer& tokenizer();
  QaBackend& backend();
  // A real prompt: at least 2 tokens and at most 24, fewer where the session takes fewer.
  std::vector<int32_t> prompt();

  // Of the speed gate, for the one that compares with an earlier report and for reports.
  std::optional<double> tokens_per_second;

 private:
  QaRequest request_;
  std::optional<Model> model_;
  std::optional<std::unique_ptr<Tokenizer>> tokenizer_;
  std::optional<QaBackend> backend_;
  std::string model_failure_, tokenizer_failure_, backend_failure_;
};

struct QaGate {
  std::string_view name;     // "tokenizer": as reports and --skip have it
  std::string_view meaning;  // one sentence
  QaResult (*run)(QaSubject& subject);
};
std::span<const QaGate> qa_gates();  // in the order in which they are run

struct QaOutcome {
  const QaGate* gate;
  QaResult result;
  double seconds;
};

// One gate, with its time. Whatever it throws becomes its result: NotRunnable not-run, apr::Error fail.
QaOutcome run_gate(const QaGate& gate, QaSubject& subject);

struct QaSummary {
  bool pass;
  size_t passed, failed, not_run;
  std::string reason;  // of a failure
};
// A pass: no gate failed, and at least min_executed were run.
QaSummary summarise(std::span<const QaOutcome> outcomes, size_t min_executed);

}  // namespace apr
