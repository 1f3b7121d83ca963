// The search, against a backend whose times are a formula.
#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>
#include <thread>

#include "apr/rules.hpp"
#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/profile/select.h"
#include "core/tune/tune.h"
#include "tests/base/temp_dir.h"

using namespace apr;

namespace {

// Four launches: q, k and v in one (two layers, of which the second has another v), and ffn_down twice.
struct World {
  double (*microseconds)(int64_t rows, int64_t depth) = [](int64_t, int64_t) { return 10.0; };
  double (*error)(int64_t rows, int64_t depth) = [](int64_t, int64_t) { return 0.0; };
  int64_t fails_at_rows = -1;
  double other_us = 0;  // of template "other"; 0: it cannot serve
  double seconds = 0;   // that a run takes
  double late = 0;      // seconds that sleeping took longer than asked for: the machine is busy
  uint32_t measured = 0;
  uint32_t stop_after = UINT32_MAX;  // calls; then an error, as when the program is killed
  uint32_t slow_after = UINT32_MAX;  // calls; then everything takes three times as long
  std::vector<std::string>
      candidates;  // in their order, "kernel 2 gemv rows=4 depth=1"; the default is not among them
} world;

struct Kernel {
  uint32_t launch;
  const char *weight, *role, *format;
  uint64_t n, k;
  const char* spec;
};
constexpr Kernel kKernels[] = {
    {0, "blk.0.attn_q", "attn_q", "q4_k", 64, 64, "qkv a"},
    {0, "blk.0.attn_v", "attn_v", "q4_k", 32, 64, "qkv a"},
    {1, "blk.1.attn_q", "attn_q", "q4_k", 64, 64, "qkv b"},
    {1, "blk.1.attn_v", "attn_v", "q6_k", 32, 64, "qkv b"},
    {2, "blk.0.ffn_down", "ffn_down", "q6_k", 64, 128, "down"},
    {3, "blk.1.ffn_down", "ffn_down", "q6_k", 64, 128, "down"},
};

apr_status info(apr_session*, apr_session_info* out, apr_error*) {
  return out->n_kernels = std::size(kKernels), APR_OK;
}

apr_status kernel(apr_session*, uint32_t index, apr_kernel_info* out, apr_error*) {
  const Kernel& k = kKernels[index];
  out->stage = k.weight, out->weight = k.weight, out->format = k.format, out->layout = "planar",
  out->kernel = "gemv", out->config = "";
  out->op = "linear", out->spec = k.spec, out->rule = "", out->rejected = "", out->n = k.n, out->k = k.k;
  out->bytes = k.n * k.k, out->m_min = out->m_max = 1, out->launch = k.launch;
  return APR_OK;
}

std::string described(uint32_t index, const apr_kernel_rule& rule) {
  std::string text = "kernel " + std::to_string(index) + " " + rule.kernel;
  for (uint32_t v = 0; v < rule.n_values; ++v)
    text += std::string(" ") + rule.values[v].name + "=" + std::to_string(rule.values[v].value);
  return text;
}

apr_status measure(apr_session*, uint32_t index, uint32_t repetitions,
                   const apr_kernel_rule* const* candidates, uint32_t n, apr_measurement* results,
                   apr_error* error) {
  if (world.measured++ >= world.stop_after) return std::strcpy(error->message, "killed"), APR_FAILED;
  const auto begin = Clock::now();
  const double slower = world.measured > world.slow_after ? 3 : 1;
  const std::chrono::duration<double> asked(slower * world.seconds * n * repetitions);
  for (uint32_t i = 0; i < n; ++i)
    if (candidates[i] != nullptr) world.candidates.push_back(described(index, *candidates[i]));
  std::this_thread::sleep_for(asked);
  world.late += seconds_since(begin) - asked.count();
  for (uint32_t i = 0; i < n; ++i) {
    results[i].spread = 0.05;
    if (candidates[i] != nullptr && std::strcmp(candidates[i]->kernel, "other") == 0) {
      results[i].status = world.other_us > 0 ? APR_OK : APR_UNSUPPORTED;
      results[i].microseconds = world.other_us - (candidates[i]->n_values > 0 ? 1 : 0);
      continue;
    }
    int64_t rows = 2, depth = 0;
    for (uint32_t v = 0; candidates[i] != nullptr && v < candidates[i]->n_values; ++v)
      (std::strcmp(candidates[i]->values[v].name, "rows") == 0 ? rows : depth) =
          candidates[i]->values[v].value;
    results[i].status = rows == world.fails_at_rows ? APR_FAILED : APR_OK;
    if (results[i].status != APR_OK) std::strcpy(results[i].message, "does not compile");
    results[i].microseconds = world.microseconds(rows, depth);
    results[i].error = world.error(rows, depth);
  }
  return APR_OK;
}

const apr_backend kBackend = [] {
  apr_backend b{};
  b.struct_size = sizeof b;
  b.name = "fake";
  b.session_info = info, b.kernel = kernel, b.measure = measure;
  return b;
}();

struct Fixture {
  apr_quant_format format{};
  std::vector<apr_weight> weights;
  std::vector<const apr_weight*> list;
  apr_plan plan{};
  TuneRequest request{};

  Fixture() {
    world = {};
    format.struct_size = sizeof format, format.name = "q", format.int_group = 32;
    for (const Kernel& k : kKernels)
      weights.push_back({sizeof(apr_weight), k.weight, k.role, 0, &format, k.n, k.k, nullptr, 0});
    for (const apr_weight& w : weights) list.push_back(&w);
    plan.weights = list.data(), plan.n_weights = static_cast<uint32_t>(list.size());
    request.backend = &kBackend;
    request.plan = &plan;
    request.templates = {{"gemv",
                          "linear",
                          "int",
                          "",
                          "",
                          "",
                          "1",
                          1,
                          8,
                          {"planar"},
                          {},
                          {{"rows", "", {1, 2, 4, 8}, {}, 2}, {"depth", "", {0, 1, 2, 3}, {}, 0}}}};
    request.seconds = 60;
    request.int8_bound = 4e-4, request.float_bound = 8e-7;
  }
};

}  // namespace

TEST_CASE("the fastest parameters are found, also where they depend on each other") {
  Fixture f;
  // More rows pay only once loads run ahead, and the parameters are tried in the order rows, depth: it takes
  // two rounds.
  world.microseconds = [](int64_t rows, int64_t depth) {
    return depth != 2 ? 13.0 + static_cast<double>(rows) / 2 : rows == 4 ? 10.0 : 12.0;
  };
  const TuneOutcome outcome = tune(f.request);
  REQUIRE(outcome.specs.size() == 3);
  CHECK(outcome.complete);
  for (const auto& found : outcome.found) {
    REQUIRE(found.has_value());
    CHECK(found->params == std::map<std::string, int64_t>{{"depth", 2}, {"rows", 4}});
    CHECK(found->best_us == 10.0);
    CHECK(found->base_us == 14.0);
    CHECK(found->tried > 2 * 3);
  }
}

TEST_CASE("a gain within the noise changes nothing") {
  Fixture f;
  world.microseconds = [](int64_t rows, int64_t) { return rows == 4 ? 9.92 : 10.0; };
  const TuneOutcome outcome = tune(f.request);
  for (const auto& found : outcome.found) CHECK(found->params.empty());
  CHECK(rules_of(outcome, "fake", f.request.templates).empty());
}

TEST_CASE("what is wrong or does not build is dropped, and said") {
  Fixture f;
  world.microseconds = [](int64_t rows, int64_t) { return 20.0 - static_cast<double>(rows); };
  world.error = [](int64_t rows, int64_t) { return rows == 4 ? std::nan("") : 0.0; };
  world.fails_at_rows = 8;
  const TuneOutcome outcome = tune(f.request);
  for (const auto& found : outcome.found) {
    CHECK(found->params.empty());
    CHECK(found->failed >= 1);
    CHECK(found->inexact >= 1);
    CHECK(found->note == "does not compile");
  }
  // Just beyond the bound is beyond it.
  world.fails_at_rows = -1;
  world.error = [](int64_t rows, int64_t) { return rows == 8 ? 5e-4 : 3e-4; };
  CHECK(tune(f.request).found[0]->params.at("rows") == 4);
}

TEST_CASE("rules name a tensor that tells demands apart, and match those alone") {
  Fixture f;
  world.microseconds = [](int64_t rows, int64_t) { return 20.0 - static_cast<double>(rows); };
  const TuneOutcome outcome = tune(f.request);
  const auto rules = rules_of(outcome, "fake", f.request.templates);
  REQUIRE(rules.size() == 3);
  KernelRules c;
  c.add(rules, "fake", f.request.templates);
  // attn_q is in both kinds of layer, so attn_v decides.
  for (const auto& [format, hits] : {std::pair{"q4_k", 1}, std::pair{"q6_k", 1}, std::pair{"q8_0", 0}}) {
    const KernelDemand::Tensor launch[] = {{"blk.0.attn_q", "attn_q", "q4_k", "planar", 64, 64},
                                           {"blk.0.attn_v", "attn_v", format, "planar", 32, 64}};
    int matched = 0;
    for (uint32_t i = 0; i < c.size(); ++i)
      matched += rule_matches(*c.c()[i], {}, {"linear", 1, 1, "", launch, 2});
    CHECK(matched == hits);
  }
}

TEST_CASE("an interrupted run goes on where it was") {
  Fixture f;
  const apr_test::TempDir folder;
  f.request.journal = folder / "t.journal";
  f.request.identity = "device, model";
  world.microseconds = [](int64_t rows, int64_t) { return 20.0 - static_cast<double>(rows); };
  const TuneOutcome whole = tune(f.request);
  std::filesystem::remove(f.request.journal);
  const uint32_t calls = world.measured;

  // In the middle of first rounds, and when the first demand is finished.
  for (const uint32_t stop : {calls / 2, calls - 1}) {
    std::filesystem::remove(f.request.journal);
    world.measured = 0;
    world.stop_after = stop;
    CHECK_THROWS_AS(tune(f.request), Error);
    world.stop_after = UINT32_MAX;
    const uint32_t before = world.measured;
    const TuneOutcome rest = tune(f.request);
    CHECK(rest.resumed >= 1);
    if (stop == calls - 1) CHECK(world.measured - before < calls);
    for (size_t i = 0; i < rest.found.size(); ++i) CHECK(rest.found[i]->params == whole.found[i]->params);
  }

  // Of another device, or damaged: nothing is taken.
  f.request.identity = "another device";
  CHECK(tune(f.request).resumed == 0);
  std::ofstream(f.request.journal) << "{\"identity\": \"another device\", \"found\": [{\"key\": 3}]}";
  CHECK(tune(f.request).resumed == 0);
}

TEST_CASE("stopped after any measurement, all that was measured is kept, and not measured again") {
  Fixture f;
  const apr_test::TempDir folder;
  f.request.journal = folder / "t.journal";
  world.microseconds = [](int64_t rows, int64_t depth) {
    return 20.0 - static_cast<double>(rows) + static_cast<double>(depth);
  };
  const TuneOutcome whole = tune(f.request);
  const uint32_t calls = world.measured;
  const size_t candidates = world.candidates.size();
  CHECK_FALSE(whole.interrupted);
  for (uint32_t stop = 0; stop < calls; stop += stop < 4 ? 1 : 5) {
    CAPTURE(stop);
    std::filesystem::remove(f.request.journal);
    world.measured = 0, world.candidates.clear();
    f.request.stop = [&] { return world.measured >= stop; };
    const TuneOutcome part = tune(f.request);
    CHECK(part.interrupted);
    CHECK_FALSE(part.complete);
    CHECK(world.measured == stop);
    CHECK((part.kept > 0) == (stop > 0));
    CHECK(part.kept_candidates + 2 >= stop);  // the decisions of finished demands are no candidates
    const std::vector<std::string> first = world.candidates;

    f.request.stop = nullptr;
    uint32_t told = 0;
    f.request.resumed = [&](size_t specs) { told = static_cast<uint32_t>(specs); };
    world.candidates.clear();
    const TuneOutcome rest = tune(f.request);
    CHECK(rest.complete);
    CHECK(rest.resumed == part.kept);
    CHECK(told == part.kept);
    for (size_t i = 0; i < rest.found.size(); ++i) CHECK(rest.found[i]->params == whole.found[i]->params);
    // The best is there for comparison; nothing else comes back.
    for (const std::string& again : world.candidates)
      if (std::find(first.begin(), first.end(), again) != first.end()) CHECK(again.ends_with("gemv rows=8"));
    CHECK(first.size() + world.candidates.size() <= candidates + 3);
  }
}

TEST_CASE("another template that serves the demand is searched too, and named by the rules") {
  Fixture f;
  KernelTemplate other = f.request.templates[0];
  other.name = "other", other.view = "float", other.params = {{"x", "", {0, 1}, {}, 0}};
  f.request.templates.push_back(other);
  other.name = "prompts", other.m_min = 9, other.m_max = 0;  // made for other numbers of tokens
  f.request.templates.push_back(other);
  world.other_us = 9;  // 8 with its parameter, the session's own 10
  const TuneOutcome outcome = tune(f.request);
  for (const TuneSpec& spec : outcome.specs) CHECK(spec.others == std::vector<std::string>{"other"});
  for (const auto& found : outcome.found) {
    CHECK(found->kernel == "other");
    CHECK(found->params.size() == 1);
    CHECK(found->best_us == 8);
    CHECK(found->base_us == 10);
  }
  for (const ProfileRule& rule : rules_of(outcome, "fake", f.request.templates))
    CHECK(rule.kernel == "other");
  // One that refuses is passed over, and is no failure.
  world.other_us = 0;
  for (const auto& found : tune(f.request).found) {
    CHECK(found->kernel.empty());
    CHECK(found->failed == 0);
  }
  // By its template alone.
  world.other_us = 9;
  f.request.templates[1].params.clear();
  const TuneOutcome plain = tune(f.request);
  CHECK(plain.found[0]->params.empty());
  CHECK_FALSE(rules_of(plain, "fake", f.request.templates).empty());
}

namespace {

double faster_with_both(int64_t rows, int64_t depth) {
  return 20.0 - static_cast<double>(rows) - static_cast<double>(depth);
}

}  // namespace

TEST_CASE("the search ends in time, and what it found is decided") {
  Fixture f;  // without a journal: a disk that others keep busy may take as long as the whole search
  world.microseconds = faster_with_both;
  world.seconds = 0.004;  // 28 ms a candidate, more than a second for all
  f.request.seconds = 0.5;
  const auto start = Clock::now();
  const TuneOutcome outcome = tune(f.request);
  const double took = seconds_since(start);
  CHECK(took < 1.1 * f.request.seconds + world.late + 0.1);
  CHECK_FALSE(outcome.complete);
  CHECK_FALSE(outcome.interrupted);
  REQUIRE(outcome.found[0].has_value());
  CHECK_FALSE(outcome.found[0]->params.empty());
}

TEST_CASE("where the time was over, the next run goes on") {
  Fixture f;
  const apr_test::TempDir folder;
  f.request.journal = folder / "t.journal";
  world.microseconds = faster_with_both;
  world.seconds = 0.004;
  f.request.seconds = 0.5;
  CHECK_FALSE(tune(f.request).complete);
  f.request.seconds = 60, world.seconds = 0;
  const TuneOutcome rest = tune(f.request);
  CHECK(rest.complete);
  CHECK(rest.resumed > 0);
}

TEST_CASE("a machine that becomes slower ends the search not much later, and what was found is decided") {
  Fixture f;
  world.microseconds = faster_with_both;
  world.seconds = 0.003, world.slow_after = 6;
  f.request.seconds = 1;
  const auto start = Clock::now();
  const TuneOutcome outcome = tune(f.request);
  const double took = seconds_since(start);
  // One confirmation, of two kernels, may have begun when the time was over but for a moment.
  CHECK(took < 1.05 + 2 * 3 * world.seconds * f.request.repetitions + world.late);
  CHECK_FALSE(outcome.complete);
  REQUIRE(outcome.found[0].has_value());
  CHECK_FALSE(outcome.found[0]->params.empty());
}

TEST_CASE("what there was no time to decide is no result, and the next run decides it") {
  Fixture f;
  const apr_test::TempDir folder;
  f.request.journal = folder / "t.journal";
  world.microseconds = [](int64_t rows, int64_t) { return 20.0 - static_cast<double>(rows); };
  const TuneOutcome whole = tune(f.request);
  // The third demand's last call, which decides, is not made.
  const uint32_t calls = world.measured;
  std::filesystem::remove(f.request.journal);
  world.measured = 0;
  f.request.stop = [&] { return world.measured >= calls - 1; };
  CHECK(tune(f.request).interrupted);
  f.request.stop = nullptr;
  world.measured = 0;
  const TuneOutcome rest = tune(f.request);
  CHECK(world.measured == 1);
  CHECK(rest.complete);
  for (size_t i = 0; i < rest.found.size(); ++i) CHECK(rest.found[i]->params == whole.found[i]->params);
}

TEST_CASE("no time: the profile says so by being incomplete") {
  Fixture f;
  f.request.seconds = 0;
  const TuneOutcome outcome = tune(f.request);
  CHECK_FALSE(outcome.complete);
  CHECK(world.measured == 0);
}

TEST_CASE("slower is what the fastest run and the median both say") {
  CHECK_FALSE(slower({1.0, 1.1, 1.2}, {1.0, 1.1, 1.2}));
  CHECK_FALSE(slower({1.0, 1.1, 1.2}, {1.01, 1.11, 1.21}));
  CHECK(slower({1.2, 1.0, 1.1}, {1.3, 1.05, 1.2}));
  CHECK_FALSE(slower({1.0, 1.1, 1.2}, {1.0, 1.5, 2.0}));   // something else ran
  CHECK_FALSE(slower({1.0, 1.2, 1.2}, {1.1, 1.11, 1.2}));  // it ran before, too
  CHECK_FALSE(slower({1.0}, {0.9}));
  CHECK(slower({1.0}, {1.1}));
}

TEST_CASE("a backend that cannot measure is refused") {
  Fixture f;
  apr_backend old = kBackend;
  old.struct_size = offsetof(apr_backend, templates);
  f.request.backend = &old;
  CHECK_THROWS_WITH_AS(tune(f.request), doctest::Contains("cannot be tuned"), Error);
}
