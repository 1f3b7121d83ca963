// The golden models: logits against those of a float64 forward pass, no further from them than the bound that each model's
// record gives. Needs APR_TEST_GOLDEN, the folder of models and NAME.logits.f32 files.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <vector>

#include "core/model/model.h"
#include "core/plan/plan.h"
#include "core/plugin/catalog.h"
#include "tests/cuda/support/formats.h"
#include "tests/cuda/support/harness.h"
#include "tests/cuda/support/tiny_plan.h"

using namespace apr::test;

namespace {

const std::vector<int32_t> kPrompt = {1,  300, 301, 302, 5,   77,  410, 411, 259, 500, 12,  13,
                                      14, 15,  400, 399, 398, 397, 396, 395, 260, 261, 262, 263};

// NMSE of llama.cpp v0.5.0 on its CPU against the same logits.
const std::map<std::string, double> kBound = {
    {"tiny-F32", 3.5e-7},   {"tiny-F16", 5.7e-7},  {"tiny-BF16", 1.3e-5}, {"tiny-Q8_0", 1.1e-4},
    {"tiny-Q4_0", 5.5e-6},  {"tiny-Q4_1", 1.3e-4}, {"tiny-Q5_0", 1.3e-4}, {"tiny-Q5_1", 1.3e-4},
    {"tiny-Q4_K", 2.9e-4},  {"tiny-Q5_K", 3.4e-4}, {"tiny-Q6_K", 2.6e-4}, {"tiny-Q4_K_M", 2.8e-4},
    {"tiny-qwen2", 2.5e-4}, {"tiny-qwen3", 3.1e-4}};

std::vector<double> read_logits(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  std::vector<float> values(24 * 512);
  in.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(values.size() * 4));
  REQUIRE_MESSAGE(in.gcount() == static_cast<std::streamsize>(values.size() * 4), file << " is too short");
  return {values.begin(), values.end()};
}

}  // namespace

TEST_CASE("golden models") {
  const char* folder = std::getenv("APR_TEST_GOLDEN");
  REQUIRE(folder != nullptr);
  apr::Catalog catalog({{plugin_folder(), "--plugin-path", true}});
  fmt::print("{:<12} {:>9} {:>9} {:>9} {:>9} {:>9}\n", "model", "bound", "batch", "single", "unfused",
             "precise");
  for (const auto& [name, limit] : kBound) {
    CAPTURE(name);
    if (!std::ifstream(std::string(folder) + "/" + name + ".gguf")) {
      fmt::print("{:<12} is not in {}\n", name, folder);
      continue;
    }
    const apr::Model model = apr::open_gguf(std::string(folder) + "/" + name + ".gguf");
    const auto plan = apr::build_plan(model, catalog, {});
    const auto expected = read_logits(std::string(folder) + "/" + name + ".logits.f32");
    const auto error = [&](const std::vector<float>& logits) {
      return nmse(logits.data(), expected.data(), expected.size());
    };
    TestSession session(plan->c(), {});
    const auto batch = session.feed(kPrompt), single = session.feed_single(kPrompt);
    const auto eager = session.feed_single(kPrompt, 0, 0, APR_STEP_NO_GRAPH);
    CHECK(std::memcmp(single.data(), eager.data(), single.size() * 4) == 0);
    const bool more = name == "tiny-F32" || name == "tiny-Q4_K_M" || name == "tiny-qwen3";
    double unfused = 0, precise = 0;
    if (more) {
      TestSession::Options options;
      options.settings = {{"no_fusion", "1"}};
      TestSession plain(plan->c(), options);
      unfused = std::max(error(plain.feed(kPrompt)), error(plain.feed_single(kPrompt)));
      options.settings = {};
      options.precise = true;
      TestSession exact(plan->c(), options);
      precise = std::max(error(exact.feed(kPrompt)), error(exact.feed_single(kPrompt)));
    }
    fmt::print("{:<12} {:>9.1e} {:>9.1e} {:>9.1e} {:>9.1e} {:>9.1e}\n", name, limit, error(batch),
               error(single), unfused, precise);
    std::fflush(stdout);
    CHECK(error(batch) <= limit);
    CHECK(error(single) <= limit);
    CHECK(unfused <= limit);
    CHECK(precise <= 1e-5);
    CHECK(session.info().dispatches_after_load == 0);
    CHECK(session.info().compiles_after_load == 0);
  }
}
