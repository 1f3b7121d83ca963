#include "aprctl/eval_compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "aprctl/engine_request.h"
#include "aprctl/eval_report.h"
#include "aprctl/speed_test.h"
#include "core/base/atomic_file.h"
#include "core/base/error.h"
#include "core/base/format.h"
#include "core/base/log.h"
#include "core/eval/plot.h"
#include "core/eval/summary.h"

namespace apr::ctl {
namespace {

using nlohmann::ordered_json;

// The tests that `aprctl bench` has without options.
constexpr uint32_t kPromptTokens = 512, kDecodeTokens = 128;

struct Entry {
  std::string model;
  EvalResult result;
  EvalSummary summary;
  std::optional<Sample> prompt, decode;  // tok/s

  double bits() const { return bits_per_weight(result.weight_bytes, result.parameters); }
};

void measure_speed(const CommandLine& line, Entry& entry, uint32_t repetitions) {
  EngineRequest request = engine_request(line, entry.model);
  request.load.n_ctx = std::max(kPromptTokens, kDecodeTokens);
  Engine engine(line, request);
  SpeedTester tester(engine.session(), engine.session().vocab());
  SpeedTest prompt{kPromptTokens, 0, 0}, decode{0, kDecodeTokens, 0};
  tester.repeat(prompt, repetitions);
  tester.repeat(decode, repetitions);
  entry.prompt = prompt.tokens_per_second();
  entry.decode = decode.tokens_per_second();
}

// "skerry-7m-q4_k_m": what tells files of one model apart.
std::string label_of(const std::string& model) {
  const std::filesystem::path path(model);
  const std::string name =
      path.filename().empty() ? path.parent_path().filename().string() : path.filename().string();
  return name.ends_with(".gguf") ? name.substr(0, name.size() - 5) : name;
}

// The end is what differs.
std::string shortened(const std::string& label, size_t width) {
  const std::string text = printable(label);
  return text.size() <= width ? text : ".." + text.substr(text.size() - (width - 2));
}

void print_table(const std::vector<Entry>& entries) {
  fmt::print("{:<17} {:>6} {:>8} {:>11} {:>12} {:>7} {:>6} {:>6}\n", "model", "bpw", "size", "perplexity",
             "KL, nats", "top-1 %", "pp512", "tg128");
  for (const Entry& e : entries) {
    const auto speed = [](const std::optional<Sample>& s) {
      return s ? fmt::format("{:.0f}", s->mean) : std::string("-");
    };
    const bool has = e.summary.has_reference;
    fmt::print("{:<17} {:>6.3f} {:>8} {:>11} {:>12} {:>7} {:>6} {:>6}\n", shortened(label_of(e.model), 17),
               e.bits(), human_bytes(e.result.weight_bytes), with_error(e.summary.perplexity),
               has ? with_error(e.summary.kl_mean) : "-",
               has ? fmt::format("{:.2f}", 100 * e.summary.same_top.value) : std::string("-"),
               speed(e.prompt), speed(e.decode));
  }
  fmt::print("\n1.2345(67) is 1.2345 with a standard error of 0.0067\n");
  if (std::any_of(entries.begin(), entries.end(), [](const Entry& e) { return e.prompt.has_value(); }))
    fmt::print("pp512, tg128: tok/s of a prompt of 512 tokens, of decoding 128 (`aprctl bench`)\n");
}

Plot plot_of(const std::vector<Entry>& entries) {
  const bool divergence = entries[0].summary.has_reference;
  Plot plot;
  plot.title = fmt::format("{}: quality against bits", entries[0].result.title);
  plot.x_label = "bits per weight";
  plot.y_label = divergence ? "mean KL divergence (nats per token, log scale)" : "perplexity";
  plot.log_y = divergence;
  std::vector<std::string> left_out;
  for (const Entry& e : entries) {
    const Estimate& y = divergence ? e.summary.kl_mean : e.summary.perplexity;
    if (!std::isfinite(y.value) || (divergence && y.value <= 0))
      left_out.push_back(fmt::format("{} ({})", label_of(e.model), y.value));
    else
      plot.points.push_back({label_of(e.model), e.bits(), y.value, y.error});
  }
  plot.note = divergence
                  ? fmt::format("against {}; bars: standard error", label_of(entries[0].result.reference))
                  : std::string("bars: standard error");
  if (!left_out.empty()) plot.note += "; not drawn: " + joined(left_out);
  return plot;
}

ordered_json json_of(const EvalRequest& request, const Entry& e) {
  ordered_json out = eval_json(request, e.result, e.summary);
  const auto speed = [](const std::optional<Sample>& s) {
    return s ? ordered_json{{"avg_ts", s->mean}, {"stddev_ts", s->deviation}} : ordered_json(nullptr);
  };
  out["pp512"] = speed(e.prompt);
  out["tg128"] = speed(e.decode);
  return out;
}

}  // namespace

void compare_models(const CommandLine& line, EvalRequest request, const CompareOptions& options) {
  std::vector<Entry> entries;
  for (const std::string& model : options.models) {
    log_info("{} of {}: {}", entries.size() + 1, options.models.size(), model);
    request.model = model;
    Entry entry{model, run_eval(line, request), {}, {}, {}};
    entry.summary = summarise(entry.result.scores, entry.result.has_reference);
    if (options.repetitions > 0) measure_speed(line, entry, options.repetitions);
    entries.push_back(std::move(entry));
  }
  if (options.plot) {
    AtomicFile file(*options.plot);
    file.write(svg_of(plot_of(entries)));
    file.commit();
  }
  if (options.json) {
    ordered_json all = ordered_json::array();
    for (const Entry& e : entries) all.push_back(json_of(request, e));
    fmt::print("{}\n", all.dump(2, ' ', false, ordered_json::error_handler_t::replace));
  } else {
    print_table(entries);
  }
  for (const Entry& e : entries) forget(e.result);
}

}  // namespace apr::ctl
