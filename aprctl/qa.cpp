// `aprctl qa`: one verdict on a model and a backend, from gates that judge one thing each (core/qa).
#include "core/qa/qa.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "aprctl/commands.h"
#include "aprctl/engine.h"
#include "aprctl/engine_request.h"
#include "aprctl/gate.h"
#include "aprctl/model_options.h"
#include "aprctl/probe_report.h"
#include "aprctl/qa_report.h"
#include "aprctl/sides.h"
#include "core/base/error.h"
#include "core/base/format.h"
#include "core/base/log.h"

namespace apr::ctl {
namespace {

constexpr uint32_t kContext =
    512;  // of each of the two sequences, unless --ctx gives another: no gate needs more

// The engines that gates need, made when they ask.
class Engines {
 public:
  Engines(const CommandLine& line, std::string model) : line_(line), model_(std::move(model)) {}

  QaBackend load() {
    mine_ = make(model_);
    return backend_of(*mine_);
  }
  QaBackend load_other(const std::string& path) {
    other_ = make(path);
    return backend_of(*other_);
  }
  // null: not loaded.
  Engine* mine() { return mine_.get(); }

  // Integer activations are judged by float ones, and float ones by integer ones: a backend is no judge of itself.
  static std::string reference_of(const std::string& backend, bool precise) {
    return std::string(kReferenceBackend) + (backend == kReferenceBackend && precise ? "" : ":precise");
  }
  ParityReport parity() {
    Engine& engine = *mine_;
    const std::vector<int32_t> tokens = gate_tokens(engine);
    DeviceRequest device;
    device.threads = engine.asked().backend == kReferenceBackend ? engine.asked().device.threads : 0;
    Side reference(engine.catalog(), engine.plan(),
                   parse_side(reference_of(engine.asked().backend, engine.asked().load.precise)), device,
                   static_cast<uint32_t>(tokens.size()));
    return compare_sides(engine, reference, tokens);
  }

 private:
  std::unique_ptr<Engine> make(const std::string& path) {
    EngineRequest request = engine_request(line_, path);
    request.gate = request.dump = false;
    request.load.n_sequences = 2;
    if (request.load.n_ctx == 0) request.load.n_ctx = kContext;
    request.cut_context = line_.get<uint32_t>("ctx") == 0;
    return std::make_unique<Engine>(line_, std::move(request));
  }
  static QaBackend backend_of(Engine& engine) {
    return {&engine.device(), &engine.session(), &engine.plan(), engine.asked().load.precise};
  }

  const CommandLine& line_;
  std::string model_;
  std::unique_ptr<Engine> mine_, other_;
};

double share(const CommandLine& line, const char* option) {
  const double value = line.get<double>(option);
  if (!(value >= 0 && value <= 1)) throw usage_error("aprctl qa: --{} {} is no share: 0 to 1", option, value);
  return value;
}

std::vector<std::string> skipped(const CommandLine& line) {
  auto names = line.find<std::vector<std::string>>("skip").value_or(std::vector<std::string>());
  for (const std::string& name : names) {
    std::vector<std::string_view> known;
    for (const QaGate& gate : qa_gates()) known.push_back(gate.name);
    if (std::find(known.begin(), known.end(), name) == known.end())
      throw usage_error("aprctl qa: there is no gate '{}' to skip; there are {}", printable(name),
                        joined(known));
  }
  return names;
}

}  // namespace

int qa_main(const Arguments& args) {
  CommandLine line(
      "qa",
      "Judge a model and a backend: one verdict from gates, each pass, fail or not-run. A gate that "
      "could not run never counts as passed. Exit 0: no gate failed, and --min-executed of them ran; "
      "4 otherwise. The speed is compared with that of the last report of this model on this device.",
      "aprctl qa model.gguf --backend cuda --json");
  namespace po = boost::program_options;
  ModelOptions::add(line);
  BackendOptions::add(line);
  line.options().add_options()("other", po::value<std::string>()->value_name("FILE"),
                               "the same weights in another format: gate formats")(
      "report", po::value<std::string>()->value_name("FILE"),
      "an earlier `qa --json`: gate regression; without it the last one kept in $XDG_STATE_HOME/apr/qa")(
      "regression", po::value<double>()->default_value(0.15, "0.15"),
      "share of the earlier speed that may be lost")(
      "min-share", po::value<double>()->default_value(0.25, "0.25"),
      "share of the measured bandwidth that decoding must reach: gate speed")(
      "min-executed", po::value<uint32_t>()->default_value(1), "fewer gates executed are a failure")(
      "skip", po::value<std::vector<std::string>>()->composing()->value_name("GATE"),
      "do not run this gate; may be repeated")(
      "list", po::bool_switch(), "show the gates and what they judge")("json", po::bool_switch(),
                                                                       "print JSON");
  if (!line.parse(args)) return kExitOk;
  const bool json = line.flag("json");
  if (line.flag("list")) {
    list_gates(json);
    return kExitOk;
  }
  const std::vector<std::string> skip = skipped(line);
  const Probes& probes = probes_in_force();
  const std::string path = ModelOptions::path(line);
  for (const std::string& file : {path, line.find<std::string>("other").value_or(path)})
    if (!std::filesystem::exists(file)) throw Error("{}: there is no such file", file);
  const auto report = line.find<std::string>("report");
  if (report && !std::filesystem::exists(*report)) throw Error("{}: there is no such report", *report);

  Catalog catalog(PluginOptions::search_paths(line, probes));
  Engines engines(line, path);
  QaRequest request;
  request.model = path;
  request.other = line.find<std::string>("other").value_or("");
  request.catalog = &catalog;
  request.load = [&] { return engines.load(); };
  request.load_other = [&](const std::string& other) { return engines.load_other(other); };
  request.parity = [&] { return engines.parity(); };
  request.reference = Engines::reference_of(line.get<std::string>("backend"), line.flag("precise"));
  request.kernel_cache = kernel_cache_folder(probes);
  request.min_share = share(line, "min-share");
  request.regression = share(line, "regression");
  std::string kept;  // where the last report of this model and device is
  request.baseline = [&](const QaBackend&, std::string& why_not) {
    kept = kept_report(*engines.mine());
    return read_baseline(report.value_or(kept), report.has_value(), *engines.mine(), why_not);
  };

  QaSubject subject(std::move(request));
  std::vector<QaOutcome> outcomes;
  if (!json) fmt::print("{} on {}\n", path, line.get<std::string>("backend"));
  for (const QaGate& gate : qa_gates()) {
    if (std::find(skip.begin(), skip.end(), gate.name) != skip.end()) {
      outcomes.push_back({&gate, {QaVerdict::NotRun, "", {}, {}, "--skip", {}}, 0});
    } else {
      outcomes.push_back(run_gate(gate, subject));
    }
    if (!json) print_outcome(outcomes.back());
  }
  const QaSummary summary = summarise(outcomes, line.get<uint32_t>("min-executed"));
  const nlohmann::ordered_json out =
      qa_json(path, line.get<std::string>("backend"), engines.mine(), subject, outcomes, summary);
  if (json) {
    fmt::print("{}\n", out.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
  } else {
    fmt::print("{} passed, {} failed, {} not run\nverdict: {}\n", summary.passed, summary.failed,
               summary.not_run, summary.pass ? "pass" : "FAIL: " + summary.reason);
  }
  // A slow or faulty run is not what the next one is measured by.
  if (summary.pass && !report && !kept.empty() && subject.tokens_per_second) keep_report(kept, out);
  return summary.pass ? kExitOk : kExitGate;
}

}  // namespace apr::ctl
