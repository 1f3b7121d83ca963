// What `aprctl qa` says, and the reports that it keeps and compares with.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>

#include "aprctl/engine.h"
#include "core/qa/qa.h"

namespace apr::ctl {

void list_gates(bool json);
// One gate as text, in 80 columns.
void print_outcome(const QaOutcome& outcome);
// engine: null where the backend did not load the model.
nlohmann::ordered_json qa_json(const std::string& model, const std::string& backend, const Engine* engine,
                               const QaSubject& subject, std::span<const QaOutcome> outcomes,
                               const QaSummary& summary);

// Equal for runs whose speeds can be compared: model, backend, device, software, threads, mode.
std::string speed_identity(const Engine& engine);
// The file of the last report with this identity, in $XDG_STATE_HOME or ~/.local/state; "" when there is no home.
std::string kept_report(const Engine& engine);
// Nothing when it cannot be written: then the next run has nothing to compare with, which is said.
void keep_report(const std::string& path, const nlohmann::ordered_json& report);
// The speed in a report; none with the reason when there is no comparable one. asked: a person named the file.
// Throws apr::Error for a file that is no report.
std::optional<QaBaseline> read_baseline(const std::string& path, bool asked, const Engine& engine,
                                        std::string& why_not);

}  // namespace apr::ctl
