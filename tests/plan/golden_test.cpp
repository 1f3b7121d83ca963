// The golden models, computed from their plans in double precision: whatever a plan gets wrong (a kind of
// rope, a bias, a norm, an order) moves the logits by far more than the tolerance.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/plan/interpreter.h"
#include "tests/plan/sketch.h"

using namespace apr;
using namespace apr::test;
namespace fs = std::filesystem;

namespace {

const std::vector<int32_t> kPrompt = {1,  300, 301, 302, 5,   77,  410, 411, 259, 500, 12,  13,
                                      14, 15,  400, 399, 398, 397, 396, 395, 260, 261, 262, 263};
// The reference was computed in float64 and stored as float32; frequencies are float32 here.
constexpr double kTolerance = 1e-10;

fs::path golden() { return std::getenv("APR_TEST_GOLDEN"); }

std::vector<float> read_floats(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::vector<float> floats(fs::file_size(path) / sizeof(float));
  in.read(reinterpret_cast<char*>(floats.data()),
          static_cast<std::streamsize>(floats.size() * sizeof(float)));
  return floats;
}

double nmse(const std::vector<double>& a, const std::vector<float>& b) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    error += (a[i] - b[i]) * (a[i] - b[i]);
    norm += double{b[i]} * b[i];
  }
  return error / norm;
}

}  // namespace

TEST_CASE("golden models: logits of the plan") {
  int models = 0;
  for (const auto& entry : fs::directory_iterator(golden())) {
    if (entry.path().extension() != ".gguf") continue;
    ++models;
    CAPTURE(entry.path().filename().native());
    const Model model = open_gguf(entry.path().native());
    const auto plan = build_plan(model, build_tree_catalog());
    CHECK(plan->notes().empty());
    const std::vector<double> logits = interpret(plan->c(), kPrompt);
    const std::vector<float> expected = read_floats(fs::path(entry.path()).replace_extension(".logits.f32"));
    REQUIRE(logits.size() == expected.size());
    const double error = nmse(logits, expected);
    std::printf("%-20s NMSE %.1e\n", entry.path().filename().c_str(), error);
    CHECK(error < kTolerance);
  }
  CHECK(models > 0);
}

TEST_CASE("golden models: the check sees a wrong rope") {
  // The same model with the other kind of pairs must be far off, or the check above proves little.
  Model model = open_gguf((golden() / "tiny-F32.gguf").native());
  const auto plan = build_plan(model, build_tree_catalog());
  std::vector<apr_op> ops(plan->c().n_ops);
  std::vector<const apr_op*> list;
  for (size_t i = 0; i < ops.size(); ++i) {
    ops[i] = *plan->c().ops[i];
    if (ops[i].rope == APR_ROPE_ADJACENT) ops[i].rope = APR_ROPE_HALVES;
    list.push_back(&ops[i]);
  }
  apr_plan bent = plan->c();
  bent.ops = list.data();
  CHECK(nmse(interpret(bent, kPrompt), read_floats(golden() / "tiny-F32.logits.f32")) > 1e-3);
}

int main(int argc, char** argv) {
  if (!std::getenv("APR_TEST_GOLDEN")) {
    std::puts("skipped: APR_TEST_GOLDEN is not set (the folder of golden models)");
    return 77;
  }
  doctest::Context context(argc, argv);
  return context.run();
}
