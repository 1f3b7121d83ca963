// Rules of the caller: a session runs the kernels that they name, says which rule it was, and refuses what it
// cannot obey.
#include <doctest/doctest.h>

#include <cstring>

#include "support.h"

using namespace apr::test;

namespace {

const apr_kernel_info* find(const std::vector<apr_kernel_info>& kernels, const std::string& stage,
                            bool many) {
  for (const apr_kernel_info& k : kernels)
    if (k.stage == stage && (k.m_min > 1) == many) return &k;
  return nullptr;
}

std::vector<Token> prompt(uint32_t n) { return count_up(n); }

SessionOptions with(const std::vector<const apr_kernel_rule*>& rules, bool precise = false) {
  SessionOptions options;
  options.precise = precise;
  options.rules = rules;
  return options;
}

}  // namespace

TEST_CASE("a rule chooses the kernel of a tensor") {
  SmallModel model(kInt32);
  Loaded plain(model.plan()), precise(model.plan(), {}, with({}, true));
  const auto truth = precise.step(prompt(3)).logits;
  const double rounded = nmse(plain.step(prompt(3)).logits, truth);
  CHECK(rounded > 0);

  // Every product of a few tokens with float activations: nearer to the truth; prompts as before.
  const apr_kernel_rule floats = any_rule("gemv_float");
  Loaded loaded(model.plan(), {}, with({&floats}));
  REQUIRE_MESSAGE(loaded.ok(), loaded.error());
  const auto kernels = loaded.kernels();
  const apr_kernel_info* few = find(kernels, "blk.0.ffn_down", false);
  REQUIRE(few != nullptr);
  CHECK(std::string(few->kernel) == "gemv_float");
  CHECK(std::string(few->rule) == "test.toml:1");
  CHECK(std::string(few->rejected).find("gemv_int: able, but the rule names another") != std::string::npos);
  const apr_kernel_info* many = find(kernels, "blk.0.ffn_down", true);
  REQUIRE(many != nullptr);
  CHECK(std::string(many->kernel) == "gemm_int");
  CHECK(std::string(many->rule).empty());
  CHECK(nmse(loaded.step(prompt(3)).logits, truth) < rounded / 10);
  CHECK(loaded.step(prompt(20)).logits == plain.step(prompt(20)).logits);
}

TEST_CASE("floats for prompts, 8 bits for decode, and the other way round") {
  SmallModel model(kInt32);
  Loaded precise(model.plan(), {}, with({}, true)), plain(model.plan());
  const apr_kernel_rule gemm = any_rule("gemm_float"), gemv = any_rule("gemv_float");
  Loaded prompts(model.plan(), {}, with({&gemm})), all(model.plan(), {}, with({&gemv, &gemm}));
  const auto truth = precise.step(prompt(20)).logits;
  CHECK(nmse(prompts.step(prompt(20)).logits, truth) < nmse(plain.step(prompt(20)).logits, truth) / 10);
  CHECK(prompts.step({{7, 20}}).status == APR_OK);
  CHECK(prompts.step(prompt(2)).logits == plain.step(prompt(2)).logits);
  CHECK(all.step(prompt(2)).status == APR_OK);
}

TEST_CASE("parameters: instruction set, tasks, blocking, copies") {
  SmallModel model(kInt32);
  Loaded plain(model.plan());
  const auto few = plain.step(prompt(2)).logits, many = plain.step(prompt(20)).logits;
  const apr_rule_value small[] = {{"task_kib", 4}, {"memory", 1}}, wide[] = {{"columns", 256}};
  apr_kernel_rule gemv = any_rule("gemv_int"), gemm = any_rule("gemm_int");
  gemv.values = small, gemv.n_values = 2;
  gemm.values = wide, gemm.n_values = 1;
  Loaded loaded(model.plan(), {}, with({&gemv, &gemm}));
  REQUIRE_MESSAGE(loaded.ok(), loaded.error());
  CHECK(std::string(find(loaded.kernels(), "blk.0.ffn_up", false)->config).find("task_kib=4 memory=copied") !=
        std::string::npos);
  CHECK(std::string(find(loaded.kernels(), "blk.0.ffn_up", true)->config).find("columns=256") !=
        std::string::npos);
  // Where the work is cut changes no bit of a GEMV.
  CHECK(loaded.step(prompt(2)).logits == few);
  CHECK(nmse(loaded.step(prompt(20)).logits, many) < 1e-8);

  const apr_rule_value portable[] = {{"isa", APR_ISA_PORTABLE}};
  gemv.values = gemm.values = portable, gemv.n_values = gemm.n_values = 1;
  Loaded slow(model.plan(), {}, with({&gemv, &gemm}));
  REQUIRE_MESSAGE(slow.ok(), slow.error());
  CHECK(std::string(find(slow.kernels(), "blk.1.attn_q", false)->config).find("isa=portable") !=
        std::string::npos);
  CHECK(nmse(slow.step(prompt(20)).logits, many) < 1e-6);
}

TEST_CASE("rules that cannot be obeyed are refused by origin") {
  SmallModel model(kInt32);
  const auto error_of = [&](const apr_kernel_rule& rule, bool precise = false) {
    Loaded loaded(model.plan(), {}, with({&rule}, precise));
    CHECK_FALSE(loaded.ok());
    CHECK(loaded.status() == APR_INVALID);
    return loaded.error();
  };
  CHECK(error_of(any_rule("gemv_uint"))
            .find("test.toml:1: there is no kernel gemv_uint; there are gemv_int, gemv_float") == 0);
  apr_kernel_rule rule = any_rule("gemv_int");
  const apr_rule_value bad[] = {{"task_kib", 5}}, unknown[] = {{"lanes", 5}};
  rule.values = bad, rule.n_values = 1;
  CHECK(error_of(rule).find("task_kib of gemv_int cannot be 5") != std::string::npos);
  rule.values = unknown;
  CHECK(error_of(rule).find("gemv_int has no parameter lanes") != std::string::npos);
  rule = any_rule("gemv_int");
  rule.arch = "sm_90a";
  CHECK(error_of(rule).find("'sm_90a' is no instruction set of this backend") != std::string::npos);
  // A float codec has no integer kernels.
  SmallModel floats(kFloat32);
  const apr_kernel_rule integer = any_rule("gemv_int");
  Loaded loaded(floats.plan(), {}, with({&integer}));
  CHECK(loaded.status() == APR_INVALID);
  CHECK_MESSAGE(loaded.error().find("test.toml:1: gemv_int cannot serve w") == 0, loaded.error());
  CHECK_MESSAGE(loaded.error().find("has no integer kernels") != std::string::npos, loaded.error());
}

TEST_CASE("a precise session passes over rules that round, unless they were forced") {
  SmallModel model(kInt32);
  apr_kernel_rule rule = any_rule("gemv_int");
  Loaded passed(model.plan(), {}, with({&rule}, true));
  REQUIRE_MESSAGE(passed.ok(), passed.error());
  CHECK(std::string(find(passed.kernels(), "blk.0.ffn_down", false)->kernel) == "gemv_float");
  rule.forced = 1;
  Loaded forced(model.plan(), {}, with({&rule}, true));
  CHECK(forced.status() == APR_INVALID);
  CHECK_MESSAGE(forced.error().find("precise") != std::string::npos, forced.error());
}

TEST_CASE("candidates are measured beside the session's own kernel") {
  SmallModel model(kInt32);
  Loaded loaded(model.plan());
  const auto kernels = loaded.kernels();
  uint32_t down = 0, attention = 0;
  for (uint32_t i = 0; i < kernels.size(); ++i) {
    if (std::string(kernels[i].stage) == "blk.1.ffn_down" && kernels[i].m_min == 1) down = i;
    if (std::string(kernels[i].op) == "attention") attention = i;
  }
  const apr_rule_value small[] = {{"task_kib", 4}}, copied[] = {{"memory", 1}}, bad[] = {{"task_kib", 3}},
                       wide[] = {{"columns", 2048}};
  apr_kernel_rule a = any_rule("gemv_int"), b = a, c = a, d = any_rule("gemv_float"),
                  e = any_rule("gemm_int"), f = any_rule("gemm_float");
  a.values = small, b.values = copied, c.values = bad, e.values = wide;
  a.n_values = b.n_values = c.n_values = e.n_values = 1;
  const apr_kernel_rule* few[] = {nullptr, &a, &b, &c, &d};
  apr_measurement results[5] = {};
  for (apr_measurement& r : results) r.struct_size = sizeof r;
  apr_error error{};
  error.struct_size = sizeof error;
  REQUIRE(backend().measure(loaded.session(), down, 3, few, 5, results, &error) == APR_OK);
  for (int i = 0; i < 3; ++i) {
    CHECK(results[i].status == APR_OK);
    CHECK(results[i].microseconds > 0);
    CHECK(results[i].error == 0);
    CHECK(results[i].bytes == kernels[down].bytes);
  }
  CHECK(std::string(results[1].config).find("task_kib=4") != std::string::npos);
  CHECK(std::string(results[2].config).find("memory=copied") != std::string::npos);
  CHECK(results[3].status == APR_INVALID);
  CHECK(std::string(results[3].message).find("task_kib") != std::string::npos);
  // Another kernel on the same activations, which it eats as floats: apart by what 8 bits round away.
  CHECK(results[4].status == APR_OK);
  CHECK(results[4].error > 0);
  CHECK(results[4].error < 4e-4);
  // Prompts, and a blocking that is wider than any of the session's.
  const apr_kernel_rule* many[] = {nullptr, &e, &f};
  REQUIRE(backend().measure(loaded.session(), down + 1, 2, many, 3, results, &error) == APR_OK);
  CHECK(results[1].status == APR_OK);
  CHECK(results[1].error < 1e-9);
  CHECK(results[2].status == APR_OK);
  CHECK(results[2].error > 0);
  CHECK(results[2].error < 4e-4);
  CHECK(backend().measure(loaded.session(), attention, 2, many, 2, results, &error) == APR_UNSUPPORTED);
  // The session goes on, from empty sequences.
  Loaded fresh(model.plan());
  CHECK(loaded.step(prompt(20)).logits == fresh.step(prompt(20)).logits);
}
