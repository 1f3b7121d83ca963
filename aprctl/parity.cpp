// `aprctl parity`: a backend against the reference, over several positions and in every form that a step has.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "aprctl/command_line.h"
#include "aprctl/commands.h"
#include "aprctl/engine.h"
#include "aprctl/gate.h"
#include "aprctl/model_options.h"

namespace apr::ctl {
namespace {

nlohmann::ordered_json report_json(const Engine& engine, const ParityReport& report) {
  nlohmann::ordered_json out = engine.report();
  out["verdict"] = to_string(report.verdict);
  out["fault"] = to_string(report.fault);
  out["reason"] = report.reason;
  out["tolerance"] = report.tolerance;
  out["worst_nmse"] = report.worst_nmse;
  out["worst_cosine"] = report.worst_cosine;
  out["seconds"] = report.seconds;
  out["positions"] = nlohmann::ordered_json::array();
  for (const ParityPosition& p : report.positions) {
    out["positions"].push_back({{"form", to_string(p.form)},
                                {"position", p.position},
                                {"pass", p.pass},
                                {"nmse", p.nmse},
                                {"cosine", p.cosine},
                                {"reference_argmax", p.reference_argmax},
                                {"device_argmax", p.device_argmax},
                                {"argmax_gap", p.argmax_gap},
                                {"reference_mean", p.reference_mean},
                                {"reference_deviation", p.reference_deviation},
                                {"device_mean", p.device_mean},
                                {"device_deviation", p.device_deviation}});
  }
  out["differences"] = nlohmann::ordered_json::array();
  for (const ParityDifference& d : report.differences) {
    out["differences"].push_back({{"form", to_string(d.form)},
                                  {"position", d.position},
                                  {"token", d.token},
                                  {"reference", d.reference},
                                  {"device", d.device}});
  }
  return out;
}

int exit_code(ParityVerdict verdict) {
  switch (verdict) {
    case ParityVerdict::Pass: return kExitOk;
    case ParityVerdict::Fail: return kExitGate;
    case ParityVerdict::NotRun: return kExitError;
  }
  return kExitError;
}

}  // namespace

int parity_main(const Arguments& args) {
  CommandLine line("parity",
                   "Compare a backend with the precise CPU reference on a real prompt: as one batch, token by token, and through the\n"
                   "captured graph. Exit 0: pass, 4: fail, 1: could not run.",
                   "aprctl parity -m model.gguf --backend cuda");
  ModelOptions::add(line);
  BackendOptions::add(line);
  line.options().add_options()("json", boost::program_options::bool_switch(), "print JSON");
  if (!line.parse(args)) return kExitOk;
  EngineRequest request = Engine::request(line);
  request.gate = false;
  Engine engine(line, request);
  const ParityReport report = compare_with_reference(engine);
  if (line.flag("json")) {
    fmt::print("{}\n", report_json(engine, report).dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
  } else {
    fmt::print("{}\n", describe(report));
  }
  return exit_code(report.verdict);
}

}  // namespace apr::ctl
