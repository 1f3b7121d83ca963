// `aprctl tune`: measures kernels' parameters on the real device and writes the fastest as a profile.
#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "aprctl/command_line.h"
#include "aprctl/commands.h"
#include "aprctl/engine.h"
#include "aprctl/installation.h"
#include "aprctl/interrupt.h"
#include "aprctl/model_options.h"
#include "aprctl/tune_whole.h"
#include "core/base/atomic_file.h"
#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/base/format.h"
#include "core/base/log.h"
#include "core/base/sha256.h"
#include "core/base/wrap.h"
#include "core/gate/parity.h"
#include "core/tune/tune.h"

namespace apr::ctl {

namespace {

using nlohmann::ordered_json;

// As the parity gate derives it for one rounded input: an 8-bit block's rounding error on both sides, with
// its margin.
constexpr double kInt8Noise = 4.7e-5, kFloatNoise = 1e-7, kMargin = 4.0;

std::string floor_text(const TuneSpec& spec, double microseconds, double peak) {
  const double floor = static_cast<double>(spec.bytes) / peak * 1e-3;
  return fmt::format("{:.2f} of the floor", microseconds / floor);
}

ordered_json outcome_json(const TuneOutcome& outcome, double peak) {
  ordered_json list = ordered_json::array();
  for (size_t i = 0; i < outcome.specs.size(); ++i) {
    const TuneSpec& spec = outcome.specs[i];
    ordered_json one = {{"spec", spec.spec},
                        {"kernel", spec.kernel},
                        {"m_min", spec.m_min},
                        {"m_max", spec.m_max},
                        {"launches", spec.launches.size()},
                        {"bytes", spec.bytes}};
    one["searched"] = outcome.found[i].has_value();
    if (const auto& found = outcome.found[i]) {
      one["default_us"] = found->base_us, one["best_us"] = found->best_us, one["params"] = found->params,
      one["best_kernel"] = found->kernel.empty() ? spec.kernel : found->kernel, one["config"] = found->config;
      one["floor_us"] = static_cast<double>(spec.bytes) / peak * 1e-3;
      one["tried"] = found->tried, one["failed"] = found->failed, one["inexact"] = found->inexact,
      one["note"] = found->note;
    }
    list.push_back(std::move(one));
  }
  return list;
}

ordered_json whole_json(const WholeModel& whole) {
  ordered_json out = {{"measured", whole.why_not.empty()}, {"why_not", whole.why_not}};
  for (const auto& [name, side] : {std::pair{"decode", &whole.decode}, std::pair{"prompt", &whole.prompt}})
    if (side->measured())
      out[name] = {{"tokens", side->before.n_prompt + side->before.n_gen},
                   {"default_ts", side->before.tokens_per_second().mean},
                   {"tuned_ts", side->after.tokens_per_second().mean},
                   {"default_samples_s", side->before.seconds},
                   {"tuned_samples_s", side->after.seconds},
                   {"slower", side->slower()}};
  return out;
}

// "decode 321.4 tok/s instead of 310.0, prompts of 512 tokens 5300.0 instead of 5290.1".
std::string whole_text(const WholeModel& whole) {
  const auto speed = [](const SpeedTest& test) { return test.tokens_per_second().mean; };
  std::string text = fmt::format("decode {:.1f} tok/s instead of {:.1f}", speed(whole.decode.after),
                                 speed(whole.decode.before));
  if (whole.prompt.measured())
    text += fmt::format(", prompts of {} tokens {:.1f} instead of {:.1f}", whole.prompt.before.n_prompt,
                        speed(whole.prompt.after), speed(whole.prompt.before));
  return text;
}

// The session of the engine beside one with the profile. What prevents that is told, and no reason to lose the profile.
void compare_whole(Engine& engine, const ProfileInForce& in_force, WholeModel& whole, double until) {
  if (!whole.why_not.empty()) return;
  const apr_session_info held = engine.session().info();
  const uint64_t needed = held.weight_bytes + held.kv_bytes + held.scratch_bytes,
                 there = engine.device().info().memory_free;
  if (there < needed + needed / 4) {
    whole.why_not =
        fmt::format("a second session needs {}, and {} are free", human_bytes(needed), human_bytes(there));
    return;
  }
  LoadRequest load = engine.asked().load;
  load.rules = in_force.rules->c(), load.n_rules = in_force.rules->size();
  try {
    whole.compare([&] { return std::make_unique<Session>(engine.device(), engine.plan(), load); }, until,
                  InterruptGuard::raised);
  } catch (const Error& error) {
    whole.why_not = error.what();
  }
}

Error interrupted(const TuneOutcome& outcome, const std::string& journal, const std::string& output) {
  if (outcome.kept == 0) return Error("interrupted before anything was measured; {} is not written", output);
  return Error(
      "interrupted: {} candidate{} for {} of {} kinds of products {} measured and kept in {}; "
      "the same command goes on from there; {} is not written",
      outcome.kept_candidates, outcome.kept_candidates == 1 ? "" : "s", outcome.kept, outcome.specs.size(),
      outcome.kept_candidates == 1 ? "was" : "were", journal, output);
}

}  // namespace

int tune_main(const Arguments& args) {
  const auto start = Clock::now();
  CommandLine line(
      "tune",
      "Measure the parameters of every kernel that reads weights, on this device with cold caches, and write "
      "the fastest as a profile: of those that compute the same, and only where they beat the default by "
      "more "
      "than the noise. Nothing else should run meanwhile. Interrupted, or out of time, the same command goes "
      "on where it was.",
      "aprctl tune model.gguf --backend cuda -o mine.toml\n"
      "aprctl run model.gguf --backend cuda --profile mine.toml -p \"Once upon a time\"");
  namespace po = boost::program_options;
  ModelOptions::add(line);
  BackendOptions::add(line);
  line.options().add_options()("output,o", po::value<std::string>()->default_value("tuned.toml"),
                               "the profile that is written")(
      "seconds", po::value<double>()->default_value(150),
      "the command takes no longer: loading, the search, and what decides at its end")(
      "repetitions,r", po::value<uint32_t>()->default_value(7),
      "runs of each candidate; the end is decided by three times as many")(
      "all", po::bool_switch(), "also kernels for numbers of tokens between 1 and --batch")(
      "json", po::bool_switch(), "print JSON");
  if (!line.parse(args)) return kExitOk;
  const std::string output = line.get<std::string>("output");
  if (line.get<uint32_t>("repetitions") == 0)
    throw usage_error("aprctl tune: --repetitions must be at least 1");
  if (!(line.get<double>("seconds") > 0)) throw usage_error("aprctl tune: --seconds must be more than 0");
  EngineRequest asked = Engine::request(line);
  if (asked.load.n_ctx == 0) asked.load.n_ctx = asked.load.n_batch;  // nothing is generated
  // From the backend's own choices: a profile that is there would be what is measured against.
  if (!line.has("profile")) asked.profile = Profile{};
  const InterruptGuard guard{SIGINT, SIGTERM, SIGHUP};
  Engine engine(line, asked);

  TuneRequest request{};
  request.backend = &engine.device().backend();
  request.session = engine.session().handle();
  request.plan = &engine.plan();
  request.templates = engine.templates();
  request.arch = engine.device().info().arch;
  request.ops = {"linear"};
  request.all_tokens = line.flag("all");
  request.stop = InterruptGuard::raised;
  request.repetitions = line.get<uint32_t>("repetitions");
  request.int8_bound = kMargin * 2 * kInt8Noise;
  request.float_bound = kMargin * 2 * kFloatNoise;
  request.journal = output + ".journal";
  const ProfileStamp stamp = make_stamp(engine.device().info(), engine.templates(), engine.plan());
  Profile profile;
  profile.backend = engine.asked().backend;
  profile.stamp = stamp;
  request.identity = sha256_hex(to_toml(profile, {}) + file_hash(executable_path().string()) +
                                kernels_hash(*request.backend, request.session) +
                                fmt::format("{} {}", engine.asked().load.n_batch, request.repetitions));
  const bool terminal = isatty(STDERR_FILENO) && log_level() <= LogLevel::Info;
  const double peak = InterruptGuard::raised() ? 0 : engine.device().measure_bandwidth();
  request.resumed = [&](size_t specs) { log_info("{} taken from {}", specs, request.journal); };
  request.progress = [&](size_t done, size_t total, const TuneSpec& spec, const TunedSpec* found) {
    if (found == nullptr) {
      if (terminal) fmt::print(stderr, "\r\033[K[{} of {} done] {}", done, total, spec.spec.substr(0, 64));
      return;
    }
    if (terminal) fmt::print(stderr, "\r\033[K");
    log_info("[{}/{}] {}", done, total, spec.spec);
    log_info("  {:.1f} us, {}; {} candidates, {} failed, {} inexact", found->best_us,
             floor_text(spec, found->best_us, peak), found->tried, found->failed, found->inexact);
    if (!found->params.empty() || !found->kernel.empty())
      log_info("  instead of {:.1f} us: {} {}", found->base_us, found->kernel, found->config);
  };
  const double all = line.get<double>("seconds");
  std::optional<WholeModel> whole;
  if (!InterruptGuard::raised()) whole.emplace(engine.session(), all);
  const double before = seconds_since(start);
  request.seconds = all - before - (whole ? whole->reserve() : 0);
  const TuneOutcome outcome = tune(request);
  if (terminal) fmt::print(stderr, "\r\033[K");
  if (outcome.interrupted || !whole) throw interrupted(outcome, request.journal, output);

  profile.summary = fmt::format("tuned for {} on {}",
                                engine.model().meta.find_string("general.name").value_or(engine.plan().arch),
                                engine.device().info().name);
  profile.rules = rules_of(outcome, profile.backend, engine.templates());
  double base = 0, best = 0;
  for (size_t i = 0; i < outcome.specs.size(); ++i)
    if (outcome.found[i] && outcome.specs[i].m_min == 1) {
      base += outcome.found[i]->base_us * static_cast<double>(outcome.specs[i].launches.size());
      best += outcome.found[i]->best_us * static_cast<double>(outcome.specs[i].launches.size());
    }
  std::vector<std::string> heading = {
      "Written by aprctl tune: kernels' parameters that measured faster than the defaults.",
      fmt::format("Products of one token: {:.1f} us instead of {:.1f}.", best, base)};
  write_file_atomically(output, to_toml(profile, heading));
  // What this profile says must be what a load accepts.
  const auto in_force = [&] {
    return put_in_force(read_profile(output), engine.probes().force_kernel, profile.backend,
                        engine.templates(), stamp);
  };
  const size_t rules = profile.rules.size();
  if (rules == 0) {
    whole->why_not = "there is nothing to compare";
  } else {
    compare_whole(engine, in_force(), *whole, all - before);
    if (whole->why_not.empty()) {
      // What is faster alone and not in the whole is left out.
      std::erase_if(profile.rules, [&](const ProfileRule& rule) {
        return rule.m.least == 1 ? whole->decode.slower() : whole->prompt.slower();
      });
      heading.push_back("Whole model: " + whole_text(*whole) + ".");
      if (profile.rules.size() < rules)
        heading.push_back(fmt::format("{} of {} rules, which made it slower, are left out.",
                                      rules - profile.rules.size(), rules));
    }
    write_file_atomically(output, to_toml(profile, heading));
  }
  (void)in_force();
  const double seconds = seconds_since(start);
  std::error_code ignored;
  if (outcome.complete) std::filesystem::remove(request.journal, ignored);
  if (line.flag("json")) {
    ordered_json out = engine.report();
    out["output"] = output, out["seconds"] = seconds, out["complete"] = outcome.complete,
    out["resumed"] = outcome.resumed, out["candidates_kept"] = outcome.kept_candidates;
    out["peak_gbs"] = peak, out["rules_written"] = profile.rules.size(), out["decode_default_us"] = base,
    out["decode_best_us"] = best;
    out["whole"] = whole_json(*whole), out["rules_left_out"] = rules - profile.rules.size();
    out["specs"] = outcome_json(outcome, peak);
    fmt::print("{}\n", out.dump(2, ' ', false, ordered_json::error_handler_t::replace));
    return kExitOk;
  }
  fmt::print("{}: {} rules for {} kinds of products, in {:.1f} s{}\n", output, profile.rules.size(),
             outcome.specs.size(), seconds,
             outcome.resumed > 0 ? fmt::format(" ({} taken from {})", outcome.resumed, request.journal) : "");
  fmt::print("products of one token: {:.1f} us instead of {:.1f}\n", best, base);
  if (!whole->why_not.empty())
    fmt::print("{}", wrapped("whole model: not measured: " + whole->why_not, 0, 2));
  else
    fmt::print("{}", wrapped("whole model: " + whole_text(*whole), 0, 2));
  if (rules > profile.rules.size())
    fmt::print("{}", wrapped(fmt::format("{} of {} rules were left out, since they make the whole slower",
                                         rules - profile.rules.size(), rules),
                             0, 2));
  if (outcome.kept == 0)
    fmt::print("nothing was measured: the model was ready after {:.1f} of {} s; give it more --seconds\n",
               before, all);
  else if (!outcome.complete)
    fmt::print("the time was over before all were searched; run it again to go on, or with more --seconds\n");
  return kExitOk;
}

}  // namespace apr::ctl
