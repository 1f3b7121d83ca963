#include "aprctl/qa_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "aprctl/probe_report.h"
#include "core/base/atomic_file.h"
#include "core/base/error.h"
#include "core/base/format.h"
#include "core/base/log.h"
#include "core/base/sha256.h"
#include "core/base/wrap.h"
#include "core/gate/parity.h"

namespace apr::ctl {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

namespace {

constexpr size_t kIndent = 30;  // of what follows name, verdict and time

ordered_json number(const std::optional<double>& value) {
  return value && std::isfinite(*value) ? ordered_json(*value) : ordered_json(nullptr);
}

// Messages of several lines stay so; what a file or library said is made safe to print.
std::string readable(const std::string& text) {
  std::string out;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    out += (at == 0 ? "" : "\n") + printable(std::string_view(text).substr(at, end - at), kLongPath);
    at = end + 1;
  }
  return out;
}

ordered_json gate_json(const QaOutcome& outcome) {
  const QaResult& r = outcome.result;
  ordered_json details = ordered_json::array();
  for (const std::string& detail : r.details) details.push_back(readable(detail));
  return {{"gate", outcome.gate->name},
          {"meaning", outcome.gate->meaning},
          {"verdict", to_string(r.verdict)},
          {"what", r.what},
          {"value", number(r.value)},
          {"bound", number(r.bound)},
          {"seconds", outcome.seconds},
          {"text", readable(r.text)},
          {"details", details}};
}

}  // namespace

void list_gates(bool json) {
  if (json) {
    ordered_json out = {{"probes", probes_json(probes_in_force())}, {"gates", ordered_json::array()}};
    for (const QaGate& gate : qa_gates())
      out["gates"].push_back({{"gate", gate.name}, {"meaning", gate.meaning}});
    fmt::print("{}\n", out.dump(2));
    return;
  }
  for (const QaGate& gate : qa_gates())
    fmt::print("{:<11} {}", gate.name, wrapped(std::string(gate.meaning), 12).substr(12));
}

void print_outcome(const QaOutcome& outcome) {
  const QaResult& r = outcome.result;
  std::string text = readable(r.text);
  // Where the sentence gives them already, once is enough.
  if (r.value && r.bound && std::isfinite(*r.value) && *r.bound != 0 &&
      text.find("bound") == std::string::npos)
    text += fmt::format("; {} {:.3g}, bound {:.3g}", r.what, *r.value, *r.bound);
  fmt::print("{:<11} {:<8} {:>5.1f} s  {}", outcome.gate->name, to_string(r.verdict), outcome.seconds,
             wrapped(text, kIndent).substr(kIndent));
  if (r.verdict == QaVerdict::Fail)
    for (const std::string& detail : r.details) fmt::print("{}", wrapped(readable(detail), kIndent));
  std::fflush(stdout);
}

ordered_json qa_json(const std::string& model, const std::string& backend, const Engine* engine,
                     const QaSubject& subject, std::span<const QaOutcome> outcomes,
                     const QaSummary& summary) {
  ordered_json out = engine != nullptr ? engine->report()
                                       : ordered_json{{"model_filename", model},
                                                      {"backend_asked", backend},
                                                      {"probes", probes_json(probes_in_force())}};
  out["verdict"] = summary.pass ? "pass" : "fail";
  out["reason"] = summary.reason;
  out["executed"] = summary.passed + summary.failed;
  out["passed"] = summary.passed;
  out["failed"] = summary.failed;
  out["not_run"] = summary.not_run;
  out["tokens_per_second"] = number(subject.tokens_per_second);
  if (engine != nullptr) out["speed_identity"] = speed_identity(*engine);
  out["gates"] = ordered_json::array();
  for (const QaOutcome& outcome : outcomes) out["gates"].push_back(gate_json(outcome));
  return out;
}

std::string speed_identity(const Engine& engine) {
  std::string text;
  for (const auto& part : engine.model().files) text += cheap_file_identity(part->path()) + ";";
  const apr_device_info device = engine.device().info();
  text +=
      fmt::format("{};{};{};{};precise={};profile={}", engine.device().backend().name, device.name,
                  device.arch, device.software, engine.asked().load.precise, engine.profile().profile.name);
  for (const auto& [name, value] : engine.probes().in_force) text += fmt::format(";{}={}", name, value);
  return sha256_hex(text);
}

std::string kept_report(const Engine& engine) {
  const char *state = std::getenv("XDG_STATE_HOME"), *home = std::getenv("HOME");
  const std::string base = state != nullptr && state[0] == '/' ? state
                           : home != nullptr && home[0] == '/' ? std::string(home) + "/.local/state"
                                                               : "";
  return base.empty() ? "" : fmt::format("{}/apr/qa/{:.32}.json", base, speed_identity(engine));
}

void keep_report(const std::string& path, const ordered_json& report) {
  try {
    fs::create_directories(fs::path(path).parent_path());
    AtomicFile file(path);
    file.write(report.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n");
    file.commit();
  } catch (const std::exception& error) {
    log_warning("the report is not kept, and the next run has no speed to compare with: {}", error.what());
  }
}

std::optional<QaBaseline> read_baseline(const std::string& path, bool asked, const Engine& engine,
                                        std::string& why_not) {
  if (path.empty() || !fs::exists(path)) {
    why_not = path.empty()
                  ? "no earlier report: there is no home folder that could hold one"
                  : "no earlier report of this model on this device; a pass is kept for the next run";
    return std::nullopt;
  }
  try {
    std::ifstream in(path);
    const auto report = nlohmann::json::parse(in);
    const std::string identity = report.at("speed_identity");
    if (identity != speed_identity(engine)) {
      why_not =
          fmt::format("{} is of another model, device or mode ({}, {}), so its speed says nothing", path,
                      printable(report.value("model_filename", "?")), printable(report.value("device", "?")));
      return std::nullopt;
    }
    if (report.at("tokens_per_second").is_null()) {
      why_not = path + " has no speed: its gate was not run";
      return std::nullopt;
    }
    return QaBaseline{path, report.at("tokens_per_second")};
  } catch (const std::exception& error) {
    const std::string what =
        fmt::format("{}: is no report of `aprctl qa --json`: {}", path, printable(error.what(), 200));
    if (asked) throw Error(what);
    why_not = what;  // damaged while it was kept: the next pass replaces it
    return std::nullopt;
  }
}

}  // namespace apr::ctl
