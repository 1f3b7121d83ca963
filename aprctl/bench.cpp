// `aprctl bench`: prompt (pp) and decode (tg) speed, measured as llama-bench does: random tokens, one warm-up, every
// repetition from an empty cache (or one filled to --depth, not timed). Decoding begins with a random token and is greedy,
// as `aprctl run --temp 0` is: each step gives the index of the largest logit, and that is the next step's token. Time to first token is measured, not derived: prompt in, first token out.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "aprctl/command_line.h"
#include "aprctl/commands.h"
#include "aprctl/engine.h"
#include "aprctl/model_options.h"
#include "aprctl/speed_test.h"
#include "core/base/error.h"
#include "core/base/format.h"
#include "core/base/log.h"
#include "core/base/wrap.h"

namespace apr::ctl {
namespace {

using nlohmann::ordered_json;
// Bytes that one token of a decode test moves: all weights once, and the KV cache at the test's mean depth.
double decode_bytes(const SpeedTest& test, const apr_session_info& info) {
  return static_cast<double>(info.token_bytes) +
         static_cast<double>(info.kv_token_bytes) * (test.n_depth + 0.5 * test.n_gen);
}

ordered_json test_json(const SpeedTest& test, const Engine& engine, const apr_session_info& info,
                       double peak) {
  const double tokens = test.n_prompt + test.n_gen;
  std::vector<double> speeds, nanoseconds;
  for (const double seconds : test.seconds) {
    speeds.push_back(tokens / seconds);
    nanoseconds.push_back(seconds * 1e9);
  }
  const Sample speed = summarise_sample(speeds), time = summarise_sample(nanoseconds);
  ordered_json out = engine.report();
  out["n_prompt"] = test.n_prompt;
  out["n_gen"] = test.n_gen;
  out["n_depth"] = test.n_depth;
  out["avg_ns"] = time.mean;
  out["stddev_ns"] = time.deviation;
  out["avg_ts"] = speed.mean;
  out["stddev_ts"] = speed.deviation;
  out["samples_ns"] = nanoseconds;
  out["samples_ts"] = speeds;
  out["peak_gbs"] = peak;
  // A prompt is bound by arithmetic: bandwidth says something about decode alone.
  const bool decode = test.n_prompt == 0;
  const double gbs = decode ? decode_bytes(test, info) * speed.mean * 1e-9 : 0.0;
  out["gbs"] = decode ? ordered_json(gbs) : ordered_json(nullptr);
  out["share_of_peak"] = decode ? ordered_json(gbs / peak) : ordered_json(nullptr);
  // One prompt step ends with its first token known, so its time is the time to first token.
  out["ttft_ms"] = decode ? ordered_json(nullptr) : ordered_json(1e-6 * time.mean);
  return out;
}

void print_row(const ordered_json& test) {
  const uint32_t prompt = test["n_prompt"], gen = test["n_gen"], depth = test["n_depth"];
  std::string name = prompt > 0 && gen > 0 ? fmt::format("pp{}+tg{}", prompt, gen)
                     : prompt > 0          ? fmt::format("pp{}", prompt)
                                           : fmt::format("tg{}", gen);
  if (depth > 0) name += fmt::format(" @ d{}", depth);
  const std::string speed =
      fmt::format("{:.2f} ± {:.2f}", test["avg_ts"].get<double>(), test["stddev_ts"].get<double>());
  std::string rest;
  if (!test["gbs"].is_null())
    rest = fmt::format("{:.1f} GB/s, {:.1f}% of {:.1f}", test["gbs"].get<double>(),
                       100 * test["share_of_peak"].get<double>(), test["peak_gbs"].get<double>());
  if (!test["ttft_ms"].is_null())
    rest = fmt::format("first token after {:.1f} ms", test["ttft_ms"].get<double>());
  fmt::print("{:<18} {:>22} tok/s   {}\n", name, speed, rest);
}

}  // namespace

int bench_main(const Arguments& args) {
  CommandLine line("bench",
                   "Measure prompt and decode speed; nothing else should run on the machine meanwhile.",
                   "aprctl bench -m model.gguf -p 512 -n 128 -r 5 --backend cuda");
  namespace po = boost::program_options;
  ModelOptions::add(line);
  BackendOptions::add(line);
  line.options().add_options()("prompt,p", po::value<uint32_t>()->default_value(512),
                               "tokens of the prompt test, 0: none")(
      "tokens,n", po::value<uint32_t>()->default_value(128), "tokens of the decode test, 0: none")(
      "depth,d", po::value<uint32_t>()->default_value(0), "tokens in the cache before a test begins")(
      "repetitions,r", po::value<uint32_t>()->default_value(5), "repetitions after one warm-up")(
      "json", po::bool_switch(), "print JSON, with llama-bench's field names where they fit");
  if (!line.parse(args)) return kExitOk;

  const uint32_t prompt = line.get<uint32_t>("prompt"), gen = line.get<uint32_t>("tokens"),
                 depth = line.get<uint32_t>("depth");
  const uint32_t repetitions = line.get<uint32_t>("repetitions");
  if (repetitions == 0) throw usage_error("aprctl bench: --repetitions must be at least 1");
  constexpr uint32_t kMost = 1u << 30;  // of each: their sum is a number of positions, too
  for (const uint32_t n : {prompt, gen, depth})
    if (n > kMost) throw usage_error("aprctl bench: {} tokens; at most {} are possible", n, kMost);
  if (prompt == 0 && gen == 0)
    throw usage_error("aprctl bench: --prompt and --tokens are both 0: nothing to measure");

  EngineRequest request = Engine::request(line);
  if (request.load.n_ctx == 0) request.load.n_ctx = depth + std::max(prompt, gen);
  Engine engine(line, request);
  const uint32_t needed = depth + std::max(prompt, gen);
  if (engine.session().context() < needed)
    throw usage_error("aprctl bench: the tests need a context of {}; --ctx gives {}", needed,
                      engine.session().context());

  const double peak = engine.device().measure_bandwidth();
  const bool json = line.flag("json");
  if (!json) {
    fmt::print("{}, {}, {} parameters\n{}",
               engine.model().meta.find_string("general.name").value_or(engine.asked().model),
               human_bytes(engine.model().weight_bytes()), human_count(engine.model().parameters()),
               wrapped(engine.resolved(), 0, 2));
    fmt::print("read bandwidth of this device: {:.1f} GB/s\n\n", peak);
  }
  ordered_json results = ordered_json::array();
  SpeedTester bench(engine.session(), engine.session().vocab());
  for (const auto& [n_prompt, n_gen] : {std::pair{prompt, 0u}, std::pair{0u, gen}}) {
    if (n_prompt + n_gen == 0) continue;
    SpeedTest test{n_prompt, n_gen, depth, {}};
    bench.repeat(test, repetitions);
    results.push_back(test_json(test, engine, engine.session().info(), peak));
    if (!json) print_row(results.back());
  }
  if (json) fmt::print("{}\n", results.dump(2));
  const apr_session_info info = engine.session().info();
  if (info.dispatches_after_load != 0 || info.compiles_after_load != 0)
    throw Error("{} dispatches and {} compilations after load: the figures include work that belongs to load",
                info.dispatches_after_load, info.compiles_after_load);
  return kExitOk;
}

}  // namespace apr::ctl
