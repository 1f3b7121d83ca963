// `aprctl quantize`: a model's weights in other formats, by a recipe, with the error of each tensor.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "aprctl/command_line.h"
#include "aprctl/commands.h"
#include "aprctl/installation.h"
#include "aprctl/interrupt.h"
#include "aprctl/model_options.h"
#include "aprctl/probe_report.h"
#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/base/format.h"
#include "core/base/log.h"
#include "core/base/sha256.h"
#include "core/base/wrap.h"
#include "core/hf/open_model.h"
#include "core/quantize/quantize.h"

namespace apr::ctl {
namespace {

using nlohmann::ordered_json;

// What is known of a run; the result is null for --dry-run.
struct Report {
  const QuantizePlan& plan;
  std::string input, output;
  const QuantizeResult* result = nullptr;
  std::string source_sha256 = {};
  std::vector<std::string> plugins = {};
  unsigned threads = 0;
  double seconds = 0;

  ConversionError error() const {
    ConversionError sum;
    for (const ConversionError& each : result->errors) sum.add(each);
    return sum;
  }
};

// "q4_k_m.toml:14" -> "q4_k_m:14", which leaves room in 80 columns.
std::string short_origin(std::string text) {
  if (const size_t at = text.find(".toml:"); at != std::string::npos) text.erase(at, 5);
  return text;
}

// Without its folder; "model/" is "model".
std::string source_name(const std::filesystem::path& input) {
  return (input.has_filename() ? input : input.parent_path()).filename().string();
}

void print_recipes(const Recipes& recipes, bool json) {
  if (json) {
    ordered_json out = {{"probes", probes_json(probes_in_force())}, {"recipes", ordered_json::array()}};
    for (const std::string& each : recipes.names())
      out["recipes"].push_back({{"name", each}, {"description", recipes.find(each, false).description}});
    fmt::print("{}\n", out.dump(2));
    return;
  }
  for (const std::string& each : recipes.names())
    fmt::print("{:<8} {}", each, wrapped(recipes.find(each, false).description, 9).substr(9));
  fmt::print("\n{}",
             wrapped("or the name of a format, for all matrices (see `aprctl plugins`), or a recipe of your "
                     "own (FILE.toml)",
                     0));
}

// Of a type that is neither a recipe nor a format: the recipes there are, and where formats were looked for.
void check_type(const Recipes& recipes, const Recipe& recipe, Catalog& catalog) {
  try {
    catalog.format(recipe.type);
  } catch (const Error& error) {
    throw usage_error("aprctl quantize: --type '{}': the recipes are {}; as a format: {}",
                      printable(recipe.name), joined(recipes.names()), error.what());
  }
}

void check_requantize(const QuantizePlan& plan, const std::string& input, bool allowed) {
  const std::vector<const TensorDecision*> twice = plan.requantized();
  if (twice.empty()) return;
  const std::string what =
      fmt::format("{}: {} tensors are quantised already ('{}' is {}); rounded again they have both errors",
                  input, twice.size(), printable(twice[0]->tensor->name), twice[0]->from->name);
  if (!allowed) throw Error("{}. Start from the F16 or BF16 model, or say --requantize", what);
  log_warning("{}", what);
}

void print_table(const Report& report) {
  fmt::print("{:<27} {:>8} {:>5} {:<7} {:>6} {:>8} {}\n", "tensor", "weights", "from", "to", "bpw", "error",
             "by");
  for (size_t i = 0; i < report.plan.decisions.size(); ++i) {
    const TensorDecision& d = report.plan.decisions[i];
    const std::string error =
        report.result == nullptr ? "-" : fmt::format("{:.6f}", report.result->errors[i].relative());
    fmt::print("{} {:>8} {:>5} {:<7} {:>6.3f} {:>8} {}\n", first_column(printable(d.tensor->name), 27),
               human_count(d.tensor->elements()), d.from->name, d.to->name,
               bits_per_weight(d.bytes, d.tensor->elements()), error, short_origin(d.why));
  }
  for (const TensorDecision& d : report.plan.decisions)
    if (!d.fallback.empty())
      fmt::print("{}", wrapped(fmt::format("fallback: {}: {}: {} instead", printable(d.tensor->name),
                                           d.fallback, d.to->name),
                               0, 2));
}

void print_summary(const Report& report) {
  struct Use {
    uint64_t tensors = 0, elements = 0, bytes = 0;
    ConversionError error;
  };
  std::map<std::string, Use> uses;
  for (size_t i = 0; i < report.plan.decisions.size(); ++i) {
    const TensorDecision& d = report.plan.decisions[i];
    Use& use = uses[d.to->name];
    use.tensors += 1;
    use.elements += d.tensor->elements();
    use.bytes += d.bytes;
    if (report.result) use.error.add(report.result->errors[i]);
  }
  fmt::print("\n{:<12} {:>8} {:>14} {:>12} {:>7} {:>9}\n", "format", "tensors", "weights", "size", "bpw",
             "error");
  for (const auto& [format, use] : uses)
    fmt::print("{:<12} {:>8} {:>14} {:>12} {:>7.3f} {:>9}\n", format, use.tensors, use.elements,
               human_bytes(use.bytes), bits_per_weight(use.bytes, use.elements),
               report.result ? fmt::format("{:.6f}", use.error.relative()) : std::string("-"));
  const Model& model = *report.plan.model;
  const uint64_t parameters = model.parameters();
  fmt::print("\n{} -> {} ({:.3f} -> {:.3f} bits per weight)\n", human_bytes(model.weight_bytes()),
             human_bytes(report.plan.bytes()), bits_per_weight(model.weight_bytes(), parameters),
             bits_per_weight(report.plan.bytes(), parameters));
  if (!report.result) return;
  fmt::print("relative error {:.6f} (RMS of the differences over RMS of the weights)\n",
             report.error().relative());
  fmt::print("{:.1f} s on {} threads: {:.1f} million weights/s\n", report.seconds, report.threads,
             static_cast<double>(parameters) / report.seconds / 1e6);
  fmt::print("{}\nsha256 {}\n", report.output, report.result->sha256);
}

ordered_json report_json(const Report& report) {
  const Model& model = *report.plan.model;
  ordered_json out = {
      {"input", report.input}, {"recipe", report.plan.recipe.name}, {"dry_run", report.result == nullptr}};
  out["probes"] = probes_json(probes_in_force());
  out["file_type"] =
      report.plan.recipe.file_type ? ordered_json(*report.plan.recipe.file_type) : ordered_json(nullptr);
  out["parameters"] = model.parameters();
  out["weight_bytes_before"] = model.weight_bytes();
  out["weight_bytes"] = report.plan.bytes();
  out["bits_per_weight"] = bits_per_weight(report.plan.bytes(), model.parameters());
  out["plugins"] = report.plugins;
  out["unmatched_rules"] = report.plan.unmatched;
  out["requantized_tensors"] = report.plan.requantized().size();
  if (report.result) {
    out["output"] = report.output;
    out["input_sha256"] = report.source_sha256;
    out["sha256"] = report.result->sha256;
    out["file_bytes"] = report.result->file_bytes;
    out["rmse"] = report.error().rmse();
    out["relative_error"] = report.error().relative();
    out["threads"] = report.threads;
    out["seconds"] = report.seconds;
    out["weights_per_second"] = static_cast<double>(model.parameters()) / report.seconds;
  }
  out["tensors"] = ordered_json::array();
  for (size_t i = 0; i < report.plan.decisions.size(); ++i) {
    const TensorDecision& d = report.plan.decisions[i];
    ordered_json tensor = {{"name", printable(d.tensor->name, kLongPath)},
                           {"n", d.tensor->n()},
                           {"k", d.tensor->k()},
                           {"from", d.from->name},
                           {"to", d.to->name},
                           {"by", d.why},
                           {"fallback", d.fallback},
                           {"importance", d.importance != nullptr},
                           {"bytes", d.bytes},
                           {"bits_per_weight", bits_per_weight(d.bytes, d.tensor->elements())}};
    if (report.result) {
      const ConversionError& error = report.result->errors[i];
      tensor["rmse"] = error.rmse();
      tensor["relative_error"] = error.relative();
      tensor["largest_error"] = error.largest;
    }
    out["tensors"].push_back(std::move(tensor));
  }
  return out;
}

void print_report(const Report& report, bool json) {
  if (json) {
    fmt::print("{}\n", report_json(report).dump(2, ' ', false, ordered_json::error_handler_t::replace));
    return;
  }
  print_table(report);
  print_summary(report);
}

// "blk.3.ffn_down.weight 12/75 34% 81 MB/s, 12 s left" on a terminal, rewritten in place; silent elsewhere.
class Progress {
 public:
  explicit Progress(const QuantizePlan& plan)
      : plan_(plan),
        shown_(isatty(STDERR_FILENO) != 0 && log_level() <= LogLevel::Info),
        start_(Clock::now()) {}
  ~Progress() {
    if (shown_) fmt::print(stderr, "\r\033[K");
  }
  void operator()(const QuantizeProgress& now) const {
    if (InterruptGuard::raised()) throw Error("interrupted: nothing was written");
    if (!shown_) return;
    const double seconds = seconds_since(start_);
    const auto total = static_cast<double>(plan_.model->weight_bytes()),
               done = static_cast<double>(now.bytes_read);
    const double rate = seconds > 0 ? done / seconds : 0.0;
    fmt::print(stderr, "\r\033[K{} {}/{} {:.0f}% {:.0f} MB/s, {:.0f} s left",
               printable(plan_.decisions[now.tensor].tensor->name, 32), now.tensor + 1,
               plan_.decisions.size(), 100 * done / total, rate / 1e6,
               rate > 0 ? (total - done) / rate : 0.0);
    std::fflush(stderr);
  }

 private:
  const QuantizePlan& plan_;
  bool shown_;
  Clock::time_point start_;
};

void add_options(CommandLine& line) {
  namespace po = boost::program_options;
  line.options().add_options()(
      "input", po::value<std::string>()->value_name("IN"),
      "the model to read, a GGUF file or a Hugging Face folder; also the first argument")(
      "output", po::value<std::string>()->value_name("OUT"),
      "the GGUF file to write; also the second argument")(
      "type", po::value<std::string>()->value_name("T"),
      "a recipe (q4_k_m, ...; see --list), a format (q8_0, vendor.name), or FILE.toml")(
      "rules", po::value<std::string>()->value_name("FILE"),
      "TOML with [[rule]] entries that come before the recipe's")(
      "pure", po::bool_switch(), "of a recipe only its main format: no mixture")(
      "importance", po::value<std::string>()->value_name("FILE"),
      "importance matrix of llama.cpp (.gguf or .dat)")("requantize", po::bool_switch(),
                                                        "allow rounding weights that are quantised already")(
      "dry-run", po::bool_switch(), "show the plan and its sizes; write nothing")(
      "list", po::bool_switch(), "list the recipes")("threads,t", po::value<uint32_t>()->default_value(0),
                                                     "0: all CPUs of this process")("json", po::bool_switch(),
                                                                                    "print JSON");
  line.positional("input", 1);
  line.positional("output", 1);
  PluginOptions::add(line);
}

}  // namespace

int quantize_main(const Arguments& args) {
  CommandLine line("quantize",
                   "Write a model's weights in other formats. The result appears under its name only when it "
                   "is whole; what was done "
                   "is in its metadata (apr.quantize.*).",
                   "aprctl quantize model-f16.gguf model-q4_k_m.gguf --type q4_k_m");
  add_options(line);
  if (!line.parse(args)) return kExitOk;
  const Recipes recipes(data_folder() / "recipes");
  if (line.flag("list")) {
    print_recipes(recipes, line.flag("json"));
    return kExitOk;
  }
  const auto input = line.find<std::string>("input"), output = line.find<std::string>("output"),
             type = line.find<std::string>("type");
  const bool dry = line.flag("dry-run");
  if (!input || !type || (!output && !dry))
    throw usage_error("aprctl quantize: {} is missing; see `aprctl quantize --help`", !input  ? "IN"
                                                                                      : !type ? "--type"
                                                                                              : "OUT");
  std::error_code ignored;
  if (output && std::filesystem::equivalent(*input, *output, ignored))
    throw usage_error("aprctl quantize: {} is the model itself; name another file", *output);

  const Probes& probes = probes_in_force();
  Catalog catalog(PluginOptions::search_paths(line, probes));
  Recipe recipe = recipes.find(*type, line.flag("pure"));
  check_type(recipes, recipe, catalog);
  const size_t shipped_rules = recipe.rules.size();
  if (const auto rules = line.find<std::string>("rules")) Recipes::add_rules(recipe, *rules);
  const size_t own_rules = recipe.rules.size() - shipped_rules;

  const Model model = open_model(*input);
  std::optional<Importance> importance;
  if (const auto file = line.find<std::string>("importance")) importance = Importance::read(*file);
  const QuantizePlan plan =
      plan_quantize(model, catalog, std::move(recipe), own_rules, importance ? &*importance : nullptr);
  for (const std::string& origin : plan.unmatched)
    log_warning("the rule at {} decided nothing in {}", origin, *input);
  if (importance) {
    const auto with = std::count_if(plan.decisions.begin(), plan.decisions.end(),
                                    [](const auto& d) { return d.importance != nullptr; });
    if (with == 0)
      throw Error("{}: no entry names a tensor that is quantised here; it belongs to another model",
                  importance->path());
    log_info("{}: importance of {} tensors", importance->path(), with);
  }

  Report report{plan, *input, output.value_or("")};
  report.plugins = plugins_of(plan, catalog);
  if (dry) {
    print_report(report, line.flag("json"));
    return kExitOk;
  }
  check_requantize(plan, *input, line.flag("requantize"));

  const InterruptGuard guard{SIGINT, SIGTERM, SIGHUP};
  const auto start = Clock::now();
  ThreadPool pool(line.get<uint32_t>("threads"));
  report.threads = pool.threads();
  report.source_sha256 = model.sha256();
  Provenance provenance{fmt::format("apr {}", APR_VERSION),
                        source_name(*input),
                        report.source_sha256,
                        report.plugins,
                        importance ? &*importance : nullptr,
                        importance ? sha256_file(importance->path()) : ""};
  const QuantizeResult result = [&] {
    const Progress progress(plan);
    return quantize_model(plan, catalog, result_metadata(plan, provenance), *output, pool,
                          std::ref(progress));
  }();
  report.result = &result;
  report.seconds = seconds_since(start);
  print_report(report, line.flag("json"));
  return kExitOk;
}

}  // namespace apr::ctl
