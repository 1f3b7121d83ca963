// Rules in whole sessions: the kernel that a rule names serves, and says so; what cannot be obeyed is refused
// by origin.
#include <doctest/doctest.h>

#include <cstring>
#include <filesystem>

#include "core/profile/select.h"
#include "tests/cuda/support/harness.h"
#include "tests/cuda/support/tiny_plan.h"

using namespace apr::test;

namespace {

apr_kernel_rule any_rule(const char* kernel) {
  apr_kernel_rule rule{};
  rule.struct_size = sizeof rule;
  rule.origin = "test.toml:1";
  rule.why = "to see it";
  rule.m[1] = UINT32_MAX;
  rule.n[1] = rule.k[1] = UINT64_MAX;
  rule.kernel = kernel;
  return rule;
}

TestSession::Options with(const std::vector<const apr_kernel_rule*>& rules) {
  TestSession::Options options;
  options.rules = rules;
  return options;
}

std::vector<double> truth_of(const TinyPlan& tiny, const std::vector<int32_t>& tokens) {
  std::vector<int32_t> positions;
  for (size_t i = 0; i < tokens.size(); ++i) positions.push_back(static_cast<int32_t>(i));
  Reference reference(tiny.plan());
  return reference.step(tokens, positions, std::vector<int32_t>(tokens.size(), 0));
}

std::string error_of(const TinyPlan& tiny, const TestSession::Options& options) {
  try {
    TestSession session(tiny.plan(), options);
  } catch (const StatusError& e) {
    CHECK(e.status == APR_INVALID);
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a rule gives a tensor another kernel, alone") {
  TinyShape shape;
  shape.format = "q4_k", shape.v_format = "q6_k";
  const TinyPlan tiny(shape);
  const auto tokens = random_tokens(12, shape.n_vocab, 7);
  const auto truth = truth_of(tiny, tokens);
  apr_kernel_rule rule = any_rule("gemv_float");
  rule.role = "ffn_down";
  const apr_rule_value values[] = {{"rows", 4}};
  rule.values = values, rule.n_values = 1;
  TestSession session(tiny.plan(), with({&rule}));
  int changed = 0;
  for (const apr_kernel_info& k : session.kernels()) {
    if (std::string(k.op) != "linear") continue;
    const bool down = std::string(k.weight).find("ffn_down") != std::string::npos;
    CAPTURE(k.weight);
    CHECK((std::string(k.kernel) == "gemv_float") == (down && k.m_max <= 8));
    CHECK((std::string(k.rule) == "test.toml:1") == (down && k.m_max <= 8));
    if (!down || k.m_max > 8) continue;
    ++changed;
    CHECK(std::string(k.config).find("rows=4") != std::string::npos);
    CHECK(std::string(k.reason).find("rule test.toml:1: to see it") == 0);
    CHECK(std::string(k.rejected).find("gemv_int: eats the int view") != std::string::npos);
  }
  CHECK(changed == 2 * 4);  // layers, and programs for 1, 2, 4 and 8 tokens
  const auto logits = session.feed_single(tokens);
  CHECK(nmse(logits.data(), truth.data(), logits.size()) < 6e-4);
  CHECK(session.info().dispatches_after_load == 0);
}

TEST_CASE("float kernels everywhere are nearer to the truth than integer ones") {
  TinyShape shape;
  shape.format = "q4_k";
  const TinyPlan tiny(shape);
  const auto tokens = random_tokens(12, shape.n_vocab, 7);
  const auto truth = truth_of(tiny, tokens);
  const apr_kernel_rule rule = any_rule("gemv_float");
  TestSession floats(tiny.plan(), with({&rule})), plain(tiny.plan(), {});
  const auto a = floats.feed_single(tokens), b = plain.feed_single(tokens);
  CHECK(nmse(a.data(), truth.data(), a.size()) < nmse(b.data(), truth.data(), b.size()) / 10);
}

TEST_CASE("one matrix of a fused kernel: it leaves the group") {
  TinyShape shape;
  shape.format = "q4_k", shape.bias = true;
  const TinyPlan tiny(shape);
  const auto tokens = random_tokens(12, shape.n_vocab, 7);
  const auto truth = truth_of(tiny, tokens);
  for (const char* role : {"attn_v", "attn_q", "ffn_gate", "ffn_up"}) {
    CAPTURE(role);
    apr_kernel_rule rule = any_rule("gemv_float");
    rule.role = role;
    TestSession session(tiny.plan(), with({&rule}));
    for (const auto& logits : {session.feed_single(tokens), session.feed(tokens)})
      CHECK(nmse(logits.data(), truth.data(), logits.size()) < 6e-4);
  }
}

TEST_CASE("a rule's layout is the weight's") {
  TinyShape shape;
  shape.format = "q4_k";
  const TinyPlan tiny(shape);
  const auto tokens = random_tokens(12, shape.n_vocab, 7);
  const auto truth = truth_of(tiny, tokens);
  apr_kernel_rule rule = any_rule(nullptr);
  rule.op = "linear", rule.tensor = "blk.1.*", rule.layout = "row_major";
  TestSession session(tiny.plan(), with({&rule}));
  for (const apr_kernel_info& k : session.kernels())
    if (std::string(k.op) == "linear")
      CHECK((std::string(k.layout) == "row_major") == (std::string(k.weight).rfind("blk.1.", 0) == 0));
  for (const auto& logits : {session.feed_single(tokens), session.feed(tokens)})
    CHECK(nmse(logits.data(), truth.data(), logits.size()) < 6e-4);
}

TEST_CASE("rules that cannot be obeyed are refused by origin") {
  TinyShape shape;
  shape.format = "q4_k";
  const TinyPlan tiny(shape);
  apr_kernel_rule rule = any_rule("gemv_f32");
  CHECK(error_of(tiny, with({&rule})).find("test.toml:1: gemv_f32 cannot serve") == 0);
  rule = any_rule("gemv_nothing");
  CHECK(error_of(tiny, with({&rule}))
            .find("test.toml:1: there is no kernel template gemv_nothing; there are") == 0);
  rule = any_rule("read_bandwidth");
  CHECK(error_of(tiny, with({&rule})).find("is no kernel of a step") != std::string::npos);
  rule = any_rule("gemv_int");
  rule.arch = "h200";
  CHECK(error_of(tiny, with({&rule})).find("'h200' is no architecture of this backend") != std::string::npos);
  rule = any_rule("gemv_int");
  const apr_rule_value values[] = {{"rows", 3}};
  rule.values = values, rule.n_values = 1;
  CHECK(error_of(tiny, with({&rule})).find("rows of gemv_int cannot be 3; it is one of") !=
        std::string::npos);
  rule = any_rule("gemv_int");
  TestSession::Options precise = with({&rule});
  precise.precise = true;
  CHECK(error_of(tiny, precise) == "");
  rule.forced = 1;
  CHECK(error_of(tiny, precise).find("precise session") != std::string::npos);
  TestSession::Options prebuilt = with({&rule});
  prebuilt.settings = {{"prebuilt", "1"}};
  CHECK(error_of(tiny, prebuilt).find("rules need NVRTC") != std::string::npos);
}

TEST_CASE("without a device kernels are decided and told, and nothing is computed") {
  TinyShape shape;
  shape.format = "q4_k";
  const TinyPlan tiny(shape);
  TestSession::Options options;
  options.settings = {{"arch", "sm_80"}};
  TestSession session(tiny.plan(), options);
  bool seen = false;
  for (const apr_kernel_info& k : session.kernels())
    seen |= std::string(k.weight) == "blk.0.ffn_down.weight" && std::string(k.kernel) == "gemv_int";
  CHECK(seen);
  CHECK_THROWS_WITH_AS(session.feed({1}), doctest::Contains("there is no device to run them"), StatusError);
  options.settings = {{"arch", "sm_12"}};
  CHECK_THROWS_WITH_AS(TestSession(tiny.plan(), options),
                       doctest::Contains("kernels can be decided for sm_80"), StatusError);
}

TEST_CASE("candidates are built together and compared with the session's own kernel") {
  TinyShape shape;
  shape.format = "q4_k", shape.v_format = "q6_k";
  const TinyPlan tiny(shape);
  const auto tokens = random_tokens(12, shape.n_vocab, 7);
  TestSession session(tiny.plan(), {});
  const auto before = session.feed(tokens);
  const auto kernels = session.kernels();
  apr_kernel_rule rows = any_rule("gemv_int"), bad = rows, other = any_rule("gemv_float"),
                  tile = any_rule("gemm");
  const apr_rule_value four[] = {{"rows", 4}}, three[] = {{"rows", 3}}, small[] = {{"bm", 64}};
  rows.values = four, bad.values = three, tile.values = small;
  rows.n_values = bad.n_values = tile.n_values = 1;
  apr_error error = {sizeof(apr_error), {}};
  int measured = 0;
  for (uint32_t i = 0; i < kernels.size(); ++i) {
    const std::string op = kernels[i].op;
    const bool prompt = kernels[i].m_max > 8;
    const apr_kernel_rule* few[] = {nullptr, &rows, &bad, &other};
    const apr_kernel_rule* many[] = {nullptr, &tile};
    const uint32_t n = prompt ? 2 : 4;
    apr_measurement results[4] = {};
    for (apr_measurement& r : results) r.struct_size = sizeof r;
    const apr_status status =
        cuda_backend().measure(session.session(), i, 2, prompt ? many : few, n, results, &error);
    CAPTURE(kernels[i].spec);
    CHECK((status == APR_OK) == (op == "linear"));
    if (op != "linear") continue;
    ++measured;
    CHECK(results[0].status == APR_OK);
    CHECK(results[0].error == 0);
    CHECK(results[0].microseconds > 0);
    CHECK_MESSAGE(results[1].status == APR_OK, results[1].message);
    CHECK(results[1].error < 1e-6);
    CHECK(std::string(results[1].config).find(prompt ? "bm=64" : "rows=4") != std::string::npos);
    if (prompt) continue;
    CHECK(results[2].status == APR_INVALID);
    CHECK(std::string(results[2].message).find("rows of gemv_int cannot be 3") != std::string::npos);
    CHECK(results[3].status == APR_UNSUPPORTED);
  }
  CHECK(measured > 20);
  // The session goes on, from empty sequences.
  const auto after = session.feed(tokens);
  CHECK(std::memcmp(before.data(), after.data(), before.size() * sizeof(float)) == 0);
}

TEST_CASE("profiles that ship name kernels and parameters that there are") {
  const auto templates = apr::kernel_templates(cuda_backend(), {});
  uint32_t rules = 0;
  for (const auto& file : std::filesystem::directory_iterator(APR_TEST_PROFILES)) {
    if (file.path().extension() != ".toml") continue;
    CAPTURE(file.path().string());
    const apr::Profile profile = apr::read_profile(file.path().string());
    if (profile.backend != "cuda") continue;
    // As on the machine that it was tuned on.
    const apr::ProfileStamp here = profile.stamp.value_or(apr::ProfileStamp{});
    const auto in_force = apr::put_in_force(profile, {}, "cuda", templates, here);
    CHECK(in_force.stamp_differences.empty());
    rules += in_force.rules->size();
  }
  CHECK(rules > 0);
}
