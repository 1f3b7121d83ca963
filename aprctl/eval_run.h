// One evaluation: a text through a model, window by window, and through a reference beside it; resumable.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "aprctl/command_line.h"
#include "core/eval/score.h"
#include "core/eval/windows.h"

namespace apr::ctl {

struct EvalRequest {
  std::string model;
  std::string text_name, text;  // file (or "standard input") and its contents
  WindowOptions windows;
  std::optional<std::string> reference;       // a model, or log-probabilities that were kept
  std::optional<std::string> save_reference;  // keep this model's
  std::optional<std::string> state;           // instead of a file in the user's cache folder
  bool anew = false;                          // do not continue
};

struct EvalResult {
  Windows windows;
  std::vector<TokenScore> scores;  // [windows.total()]
  bool has_reference = false;
  std::string reference;          // what was compared with: "f16.gguf", "x.logp (f16.gguf)"
  uint64_t resumed_at = 0;        // windows that an earlier run had computed
  double seconds = 0;             // of this run, without load
  nlohmann::ordered_json report;  // the engine's
  std::string resolved;           // asked and resolved backend, for people
  uint64_t weight_bytes = 0, parameters = 0;
  std::string title;       // the model's own name, or its file
  std::string state_file;  // to remove when the result is out; "" for none
};

// Throws apr::Error: of the text, of the models, of vocabularies that differ, and when it was interrupted, which keeps what
// it has for the next call.
EvalResult run_eval(const CommandLine& line, const EvalRequest& request);
// When the result is out nothing is left to continue.
void forget(const EvalResult& result);

}  // namespace apr::ctl
