// `aprctl parity`: a backend against the reference, or any two backends, over several positions and in every
// form that a step has; with --bisect down to the stage.
#include "core/gate/parity.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "aprctl/command_line.h"
#include "aprctl/commands.h"
#include "aprctl/engine.h"
#include "aprctl/gate.h"
#include "aprctl/model_options.h"
#include "aprctl/parity_report.h"
#include "aprctl/sides.h"
#include "aprctl/token_ids.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/text/tokenizer.h"

namespace apr::ctl {
namespace {

constexpr size_t kMostTokens =
    64;  // of a comparison: the head's results of a step come in one piece up to here

int exit_code(ParityVerdict verdict) {
  switch (verdict) {
    case ParityVerdict::Pass:
      return kExitOk;
    case ParityVerdict::Fail:
      return kExitGate;
    case ParityVerdict::NotRun:
      return kExitError;
  }
  return kExitError;
}

std::vector<int32_t> tokens_of(const CommandLine& line, Engine& engine) {
  const auto prompt = line.find<std::string>("prompt"), ids = line.find<std::string>("ids");
  if (prompt && ids)
    throw usage_error("aprctl parity: --prompt and --ids are both given; one of them is the input");
  if (!prompt && !ids) return gate_tokens(engine);
  std::vector<int32_t> tokens = ids ? parse_ids("parity", *ids, engine.session().vocab())
                                    : make_tokenizer(engine.model().meta)->encode(*prompt);
  if (tokens.size() < 2)
    throw usage_error("aprctl parity: {} token: a comparison needs at least 2", tokens.size());
  const size_t most = std::min<size_t>({kMostTokens, engine.session().context(), engine.session().batch()});
  if (tokens.size() > most) {
    log_warning("the input has {} tokens; the first {} are compared", tokens.size(), most);
    tokens.resize(most);
  }
  return tokens;
}

// Stages of a session, all of them, in both forms.
BisectPass judge(const std::string& side, const std::string& what, const ParitySide& gate_side,
                 const apr_plan& plan, const std::vector<int32_t>& tokens, bool precise) {
  BisectPass pass{what, {}};
  StageCheckOptions options;
  options.precise = precise;
  options.positions = 4;
  log_info("bisect {}: judging every stage, {}", side, what);
  for (const ParityForm form : {ParityForm::Prefill, ParityForm::Mixed}) {
    const std::vector<StageVerdict> stages = check_stages(gate_side, plan, tokens, form, options);
    pass.stages.insert(pass.stages.end(), stages.begin(), stages.end());
  }
  return pass;
}

// A stage that the backend reports in no form is part of a fused kernel.
bool fuses(const apr_plan& plan, const BisectPass& pass) {
  for (const ParityForm form : {ParityForm::Prefill, ParityForm::Mixed}) {
    std::vector<StageVerdict> of_form;
    for (const StageVerdict& v : pass.stages)
      if (v.form == form) of_form.push_back(v);
    if (!unseen_stages(plan, of_form).empty()) return true;
  }
  return false;
}

// What a suggested command needs of this one to mean the same.
std::string shared_options(const CommandLine& line, const Engine& engine) {
  std::string text;
  if (line.has("model")) text += " -m " + engine.asked().model;
  for (const std::string& path :
       line.find<std::vector<std::string>>("plugin-path").value_or(std::vector<std::string>()))
    text += " --plugin-path " + path;
  if (line.has("profile")) text += " --profile " + line.get<std::string>("profile");
  return text;
}

std::string command_of(const CommandLine& line, const Engine& engine, const std::string& sides) {
  std::string command = "aprctl parity --bisect" + shared_options(line, engine) + " --backend " + sides;
  for (const char* option : {"prompt", "ids"})
    if (const auto value = line.find<std::string>(option))
      command += fmt::format(" --{} '{}'", option, *value);
  return command;
}

// What dumps the stages of the same input.
std::string run_command_of(const CommandLine& line, const Engine& engine) {
  return fmt::format("aprctl run{} -p '{}' -n 1", shared_options(line, engine),
                     line.find<std::string>("prompt").value_or(
                         "The keeper climbed the stairs at dusk and wrote in the log"));
}

std::vector<SideBisection> bisect(const CommandLine& line, Engine& engine, const SideSpec& spec,
                                  Side& reference, const std::vector<int32_t>& tokens) {
  const apr_plan& plan = engine.plan();
  std::vector<SideBisection> all;
  const std::string command = command_of(line, engine, line.get<std::string>("backend")),
                    run_command = run_command_of(line, engine);

  SideBisection device{spec.text, {}, {}, "", {}};
  device.passes.push_back(judge(spec.text, "as it runs",
                                {&engine.device().backend(), engine.session().handle()}, plan, tokens,
                                engine.asked().load.precise));
  std::string separate_kernel;
  if (fuses(plan, device.passes[0]) && !engine.probes().no_fusion) {
    SideSpec separate = spec;
    separate.precise = engine.asked().load.precise;
    separate.settings.insert(separate.settings.end(), {{"no_fusion", "1"}, {"no_graph", "1"}});
    Side side(engine.catalog(), plan, separate, engine.asked().device, static_cast<uint32_t>(tokens.size()),
              engine.asked().load.rules, engine.asked().load.n_rules);
    device.passes.push_back(judge(spec.text, "unfused", side.gate_side(), plan, tokens, separate.precise));
    if (const BisectFinding f = find_fault(device.passes);
        f.result == BisectResult::Stage || f.result == BisectResult::Separate)
      separate_kernel = kernel_of(side.session(), f.verdict);
    // Down to one kernel, or a fault that 8-bit activations drown.
    const BisectResult so_far = find_fault(device.passes).result;
    if ((so_far == BisectResult::Group || so_far == BisectResult::Nothing) && !engine.asked().load.precise) {
      SideSpec exact = spec;
      exact.precise = true;
      Side precise(engine.catalog(), plan, exact, engine.asked().device, static_cast<uint32_t>(tokens.size()),
                   engine.asked().load.rules, engine.asked().load.n_rules);
      device.passes.push_back(judge(spec.text, "float activations", precise.gate_side(), plan, tokens, true));
      separate_kernel = kernel_of(precise.session(), find_fault(device.passes).verdict);
    }
  }
  device.finding = find_fault(device.passes);
  if (device.finding.result != BisectResult::Nothing) {
    device.kernel =
        separate_kernel.empty() ? kernel_of(engine.session(), device.finding.verdict) : separate_kernel;
    device.try_next = next_probes(device, plan, engine.session(), engine.templates(), command, run_command);
  }
  all.push_back(std::move(device));

  SideBisection other{reference.spec().text, {}, {}, "", {}};
  other.passes.push_back(
      judge(other.side, "as it runs", reference.gate_side(), plan, tokens, reference.spec().precise));
  other.finding = find_fault(other.passes);
  if (other.finding.result != BisectResult::Nothing) {
    other.kernel = kernel_of(reference.session(), other.finding.verdict);
    other.try_next = next_probes(
        other, plan, reference.session(),
        kernel_templates(reference.device().backend(), engine.asked().device.settings), command, run_command);
  }
  all.push_back(std::move(other));
  return all;
}

// A fault that no stage shows by itself.
std::string without_stage(const ParityReport& report, const std::string& command) {
  if (report.fault == ParityFault::Graph)
    return "no stage by itself: only the captured graph differs; try  APR_NO_GRAPH=1 " + command + "\n";
  if (report.fault == ParityFault::State)
    return "no stage by itself: a buffer or cache slot keeps what earlier tokens left; try  "
           "APR_NO_FUSION=1 " +
           command + "\n";
  return "";
}

}  // namespace

int parity_main(const Arguments& args) {
  CommandLine line("parity",
                   "Compare a backend with the precise CPU reference, or any two backends, on a real prompt: "
                   "as one batch, in small batches, "
                   "token by token, through the captured graph, and as generation does. Each stage is also "
                   "judged by its own inputs. "
                   "--backend A or A,B; a backend's options follow a colon: cpu:precise,cuda:no_fusion. Exit "
                   "0: pass, 4: fail, 1: could not run.",
                   "aprctl parity -m model.gguf --backend cuda --bisect");
  namespace po = boost::program_options;
  ModelOptions::add(line);
  BackendOptions::add(line);
  line.options().add_options()("prompt,p", po::value<std::string>()->value_name("TEXT"),
                               "compare on this text")("ids", po::value<std::string>()->value_name("IDS"),
                                                       "compare on these token ids, separated by commas")(
      "bisect", po::bool_switch(),
      "judge every stage of both sides, as they run and unfused, and name the first faulty one")(
      "json", po::bool_switch(), "print JSON");
  if (!line.parse(args)) return kExitOk;
  const auto [first, second] = parse_sides(line.get<std::string>("backend"));
  EngineRequest request = Engine::request(line);
  request.gate = request.dump = false;
  request.backend = second.backend;
  request.device.settings = second.settings;
  request.load.precise = request.load.precise || second.precise;
  Engine engine(line, request);
  const std::vector<int32_t> tokens = tokens_of(line, engine);
  DeviceRequest device = first.backend == second.backend ? engine.asked().device : DeviceRequest{};
  // The second side's own options are not the first's.
  for (const auto& [name, value] : second.settings) std::erase(device.settings, std::pair(name, value));
  if (first.backend != second.backend && first.backend != kReferenceBackend) device = engine.asked().device;
  Side reference(engine.catalog(), engine.plan(), first, device, static_cast<uint32_t>(tokens.size()));

  ParityReport report = compare_sides(engine, reference, tokens);
  std::vector<SideBisection> bisections;
  if (line.flag("bisect") && report.verdict != ParityVerdict::NotRun) {
    bisections = bisect(line, engine, second, reference, tokens);
    for (const SideBisection& b : bisections)
      if (b.finding.result != BisectResult::Nothing && report.verdict == ParityVerdict::Pass) {
        report.verdict = ParityVerdict::Fail;
        report.fault = ParityFault::Stage;
        report.reason = fmt::format("{}: {}", b.side, b.finding.text);
      }
  }
  if (line.flag("json")) {
    fmt::print("{}\n", parity_json(engine, report, bisections)
                           .dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
    return exit_code(report.verdict);
  }
  fmt::print("{} against {}, {} tokens\n{}", second.text, first.text, tokens.size(), describe(report));
  bool found = false;
  for (const SideBisection& b : bisections) {
    fmt::print("\n{}", describe(b));
    found = found || b.finding.result != BisectResult::Nothing;
  }
  if (!bisections.empty() && !found)
    fmt::print("{}", without_stage(report, command_of(line, engine, line.get<std::string>("backend"))));
  if (bisections.empty() && report.verdict == ParityVerdict::Fail)
    fmt::print("\n`{}` names the faulty stage\n", command_of(line, engine, line.get<std::string>("backend")));
  return exit_code(report.verdict);
}

}  // namespace apr::ctl
