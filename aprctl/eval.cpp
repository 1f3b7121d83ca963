// `aprctl eval`: how well a model predicts a text, and how far a quantised one is from the model that it was made of.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "aprctl/command_line.h"
#include "aprctl/commands.h"
#include "aprctl/eval_compare.h"
#include "aprctl/eval_report.h"
#include "aprctl/eval_run.h"
#include "aprctl/model_options.h"
#include "aprctl/text_input.h"
#include "core/base/error.h"

namespace apr::ctl {
namespace {

void add_options(CommandLine& line) {
  namespace po = boost::program_options;
  ModelOptions::add(line);
  line.options().add_options()("text", po::value<std::string>()->value_name("FILE"),
                               "the text (-: standard input)")(
      "reference", po::value<std::string>()->value_name("MODEL|FILE"),
      "compare with this model, or with log-probabilities that --save-reference has kept")(
      "save-reference", po::value<std::string>()->value_name("FILE"),
      "keep this model's log-probabilities: 4 bytes * vocabulary * predictions")(
      "stride", po::value<uint32_t>()->value_name("N"), "tokens from one window to the next; default: --ctx")(
      "skip", po::value<uint32_t>()->value_name("N"),
      "predictions of a window that do not count, since they see too little; default: half of it, or so many "
      "that overlapping "
      "windows count every token once")("windows", po::value<uint64_t>()->value_name("N"),
                                        "only the text's first N windows")(
      "state", po::value<std::string>()->value_name("FILE"),
      "where an interrupted evaluation is kept; default: in the user's cache folder")(
      "anew", po::bool_switch(), "do not continue an interrupted evaluation")("json", po::bool_switch(),
                                                                              "print JSON");
  line.options().add_options()(
      "compare", po::value<std::vector<std::string>>()->multitoken()->value_name("MODEL ..."),
      "several files of one model instead of one: a table of bits, size, quality and speed")(
      "plot", po::value<std::string>()->value_name("FILE.svg"),
      "with --compare: quality against bits, as a picture")(
      "repetitions,r", po::value<uint32_t>()->default_value(3),
      "with --compare: of the speed tests (pp512, tg128, as `aprctl bench`); 0: none");
  BackendOptions::add(line, 512, "tokens of a window, BOS among them");
}

EvalRequest request_of(const CommandLine& line) {
  const auto text = line.find<std::string>("text");
  if (!text) throw usage_error("aprctl eval: --text is missing; see `aprctl eval --help`");
  EvalRequest request;
  request.windows.ctx = line.get<uint32_t>("ctx");
  request.windows.stride = line.find<uint32_t>("stride");
  request.windows.skip = line.find<uint32_t>("skip");
  request.windows.max_windows = line.find<uint64_t>("windows");
  request.reference = line.find<std::string>("reference");
  request.save_reference = line.find<std::string>("save-reference");
  request.state = line.find<std::string>("state");
  request.anew = line.flag("anew");
  if (request.save_reference && request.reference)
    throw usage_error(
        "aprctl eval: --reference and --save-reference are both given; a model is kept or compared");
  if (request.save_reference && request.state)
    throw usage_error("aprctl eval: --save-reference begins anew each time: --state cannot be used with it");
  request.text_name = *text == "-" ? "standard input" : *text;
  request.text = read_text(*text);
  return request;
}

}  // namespace

int eval_main(const Arguments& args) {
  CommandLine line("eval",
                   "Perplexity of a text, and divergence from a reference model, with standard errors. "
                   "Interrupted, the same "
                   "command continues.",
                   "aprctl eval model-q4_k_m.gguf --text wiki.txt --reference model-f16.gguf");
  add_options(line);
  if (!line.parse(args)) return kExitOk;
  EvalRequest request = request_of(line);
  if (const auto models = line.find<std::vector<std::string>>("compare")) {
    if (line.has("model"))
      throw usage_error(
          "aprctl eval: a model and --compare are both given; name every model after --compare");
    if (request.save_reference || request.state)
      throw usage_error("aprctl eval: --{} is for one model: it cannot be used with --compare",
                        request.save_reference ? "save-reference" : "state");
    compare_models(
        line, request,
        {*models, line.find<std::string>("plot"), line.get<uint32_t>("repetitions"), line.flag("json")});
    return kExitOk;
  }
  if (line.has("plot")) throw usage_error("aprctl eval: --plot draws what --compare compares");
  request.model = ModelOptions::path(line);
  const EvalResult result = run_eval(line, request);
  const EvalSummary summary = summarise(result.scores, result.has_reference);
  if (line.flag("json"))
    fmt::print("{}\n", eval_json(request, result, summary)
                           .dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
  else
    print_eval(request, result, summary);
  forget(result);
  return kExitOk;
}

}  // namespace apr::ctl
