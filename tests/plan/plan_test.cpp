// What a plan looks like: stages, widths, heads, options.
#include <doctest/doctest.h>

#include <cmath>
#include <set>

#include "tests/plan/interpreter.h"
#include "tests/plan/sketch.h"

using namespace apr;
using namespace apr::test;

namespace {

// The rules of include/apr/plan.h that hold for every plan.
void check_rules(const Plan& plan) {
  const apr_plan& c = plan.c();
  std::set<std::string> stages;
  std::set<int32_t> written;
  CHECK(c.struct_size == sizeof(apr_plan));
  for (uint32_t i = 0; i < c.n_ops; ++i) {
    const apr_op& op = *c.ops[i];
    CHECK(op.struct_size == sizeof(apr_op));
    CHECK(stages.insert(op.stage).second);
    for (int32_t in : op.in) CHECK((in == -1 || written.contains(in)));
    CHECK(written.insert(op.out).second);
    for (int32_t weight : op.weight) CHECK(weight < static_cast<int32_t>(c.n_weights));
    for (int32_t vector : op.vector) CHECK(vector < static_cast<int32_t>(c.n_vectors));
    if (op.kind == APR_OP_LINEAR) CHECK(c.values[op.in[0]]->width == c.weights[op.weight[0]]->k);
  }
  CHECK(written.size() == c.n_values);
  CHECK(std::string(c.ops[c.head_op]->stage) == "output_norm");
  CHECK(c.values[c.logits]->width == c.n_vocab);
  for (uint32_t i = 0; i < c.n_weights; ++i) {
    const apr_weight& w = *c.weights[i];
    CHECK(w.bytes == w.n * (w.k / w.format->block_elements) * w.format->block_bytes);
  }
}

std::vector<std::string> stages_of(const Plan& plan) {
  std::vector<std::string> stages;
  for (uint32_t i = 0; i < plan.c().n_ops; ++i) stages.emplace_back(plan.c().ops[i]->stage);
  return stages;
}

}  // namespace

TEST_CASE("every architecture gives a plan that obeys the rules") {
  for (std::string_view arch : known_architectures()) {
    CAPTURE(arch);
    const auto plan = Sketch(std::string(arch)).plan();
    check_rules(*plan);
    CHECK(std::string(plan->c().arch) == arch);
    CHECK(plan->c().n_layers == 2);
    CHECK(plan->c().n_vocab == 32);
    CHECK(plan->c().n_ctx_train == 128);
    CHECK(plan->notes().empty());
    const apr_op& attention = op_of(*plan, "blk.1.attn_out");
    CHECK(attention.n_heads == 4);
    CHECK(attention.n_kv_heads == 2);
    CHECK(attention.head_dim == 16);
    CHECK(attention.scale == 0.25f);
    CHECK(attention.window == 0);
    CHECK(attention.layer == 1);
  }
}

TEST_CASE("stage names") {
  const std::vector<std::string> layer = {
      "attn_norm",   "attn_q",      "attn_k",   "attn_v",      "attn_q_norm",   "attn_k_norm",
      "attn_q_rope", "attn_k_rope", "attn_out", "attn_output", "attn_residual", "ffn_norm",
      "ffn_gate",    "ffn_up",      "ffn_act",  "ffn_down",    "ffn_residual"};
  for (const char* arch : {"llama", "qwen3"}) {
    std::vector<std::string> expected = {"embed"};
    for (const char* block : {"blk.0.", "blk.1."}) {
      for (const std::string& name : layer) {
        if (arch == std::string("qwen3") || name.find("_norm") == std::string::npos || name == "attn_norm" ||
            name == "ffn_norm") {
          expected.push_back(block + name);
        }
      }
    }
    expected.push_back("output_norm");
    expected.push_back("logits");
    CHECK(stages_of(*Sketch(arch).plan()) == expected);
  }
}

TEST_CASE("the kind of rope follows the architecture") {
  CHECK(op_of(*Sketch("llama").plan(), "blk.0.attn_q_rope").rope == APR_ROPE_ADJACENT);
  CHECK(op_of(*Sketch("mistral3").plan(), "blk.0.attn_k_rope").rope == APR_ROPE_ADJACENT);
  CHECK(op_of(*Sketch("qwen2").plan(), "blk.0.attn_q_rope").rope == APR_ROPE_HALVES);
  CHECK(op_of(*Sketch("qwen3").plan(), "blk.0.attn_k_rope").rope == APR_ROPE_HALVES);
}

TEST_CASE("biases are used where they are") {
  Sketch llama("llama");
  CHECK(op_of(*llama.plan(), "blk.0.attn_q").vector[0] == -1);
  llama.tensor("blk.0.attn_output.bias", {64});
  llama.tensor("output.bias", {32});
  const auto plan = llama.plan();
  CHECK(op_of(*plan, "blk.0.attn_output").vector[0] >= 0);
  CHECK(op_of(*plan, "blk.1.attn_output").vector[0] == -1);
  CHECK(op_of(*plan, "logits").vector[0] >= 0);
  CHECK(plan->notes().empty());
}

TEST_CASE("a tied head shares the embedding's weights") {
  Sketch sketch("qwen2");
  CHECK(sketch.plan()->c().n_weights == 2 + 2 * 7);
  sketch.remove("output.weight");
  const auto plan = sketch.plan();
  CHECK(plan->c().n_weights == 1 + 2 * 7);
  CHECK(op_of(*plan, "logits").weight[0] == op_of(*plan, "embed").weight[0]);
}

TEST_CASE("weights name their role and layer, and lie where the model's are") {
  Sketch sketch("llama");
  const auto plan = sketch.plan();
  const apr_weight& weight = *plan->c().weights[op_of(*plan, "blk.1.ffn_down").weight[0]];
  CHECK(std::string(weight.name) == "blk.1.ffn_down.weight");
  CHECK(std::string(weight.role) == "ffn_down");
  CHECK(weight.layer == 1);
  CHECK(weight.n == 64);
  CHECK(weight.k == 96);
  CHECK(weight.data == sketch.at("blk.1.ffn_down.weight").data);
  CHECK(std::string(weight.format->name) == "f32");
  CHECK(std::string(plan->c().weights[op_of(*plan, "logits").weight[0]]->role) == "output");
}

TEST_CASE("layers of different shapes") {
  Sketch sketch("llama");
  sketch.set("attention.head_count_kv", MetaArray(std::vector<int64_t>{2, 4}));
  sketch.set("feed_forward_length", MetaArray(std::vector<uint64_t>{96, 32}));
  sketch.tensor("blk.1.attn_k.weight", {64, 64});
  sketch.tensor("blk.1.attn_v.weight", {64, 64});
  sketch.tensor("blk.1.ffn_gate.weight", {64, 32});
  sketch.tensor("blk.1.ffn_up.weight", {64, 32});
  sketch.tensor("blk.1.ffn_down.weight", {32, 64});
  const auto plan = sketch.plan();
  check_rules(*plan);
  CHECK(op_of(*plan, "blk.0.attn_out").n_kv_heads == 2);
  CHECK(op_of(*plan, "blk.1.attn_out").n_kv_heads == 4);
}

TEST_CASE("a head size of its own, and rope on a part of it") {
  Sketch sketch("qwen3");
  sketch.set("attention.key_length", uint64_t{32});
  sketch.set("attention.value_length", uint64_t{32});
  sketch.set("rope.dimension_count", uint64_t{8});
  for (const char* b : {"blk.0.", "blk.1."}) {
    sketch.tensor(std::string(b) + "attn_q.weight", {64, 128});
    sketch.tensor(std::string(b) + "attn_k.weight", {64, 64});
    sketch.tensor(std::string(b) + "attn_v.weight", {64, 64});
    sketch.tensor(std::string(b) + "attn_output.weight", {128, 64});
    sketch.tensor(std::string(b) + "attn_q_norm.weight", {32});
    sketch.tensor(std::string(b) + "attn_k_norm.weight", {32});
  }
  const auto plan = sketch.plan();
  check_rules(*plan);
  const apr_op& rope = op_of(*plan, "blk.0.attn_q_rope");
  CHECK(rope.head_dim == 32);
  CHECK(rope.rope_dims == 8);
  CHECK(plan->c().vectors[rope.vector[0]]->n == 4);
}

TEST_CASE("the sliding window is obeyed by those who use it") {
  for (const char* arch : {"llama", "mistral3", "qwen2", "qwen3"}) {
    Sketch sketch(arch);
    sketch.set("attention.sliding_window", uint64_t{7});
    const bool obeys = arch == std::string("llama") || arch == std::string("mistral3");
    CHECK(op_of(*sketch.plan(), "blk.1.attn_out").window == (obeys ? 7u : 0u));
  }
}

TEST_CASE("mistral3's context ends where its queries begin to grow") {
  Sketch sketch("mistral3");
  sketch.set("rope.scaling.type", std::string("yarn"));
  sketch.set("rope.scaling.factor", 4.0);
  sketch.set("rope.scaling.original_context_length", uint64_t{32});
  CHECK(sketch.plan()->c().n_ctx_train == 128);
  sketch.set("attention.temperature_scale", 0.1);
  const auto plan = sketch.plan();
  CHECK(plan->c().n_ctx_train == 32);
  REQUIRE(plan->notes().size() == 1);
  CHECK(has(plan->notes()[0], "limited to 32 of the model's 128 tokens"));
}

TEST_CASE("unused tensors are told") {
  Sketch sketch("qwen2");
  sketch.tensor("rope_freqs.weight", {8});
  sketch.tensor("blk.0.attn_q.scale", {1});
  const auto plan = sketch.plan();
  REQUIRE(plan->notes().size() == 1);
  CHECK(has(plan->notes()[0], "2 of the file's 29 tensors are not used by this architecture"));
  CHECK(has(plan->notes()[0], "blk.0.attn_q.scale"));
}

TEST_CASE("a plan outlives the model that it was made of") {
  std::unique_ptr<Plan> plan;
  {
    const Sketch sketch("llama");
    plan = sketch.plan();
  }
  CHECK(std::string(plan->c().weights[0]->name) == "token_embd.weight");
  CHECK(plan->c().vectors[0]->n > 0);
  check_rules(*plan);
}

TEST_CASE("the dump shows every stage and weight") {
  const auto plan = Sketch("qwen3").plan();
  const std::string text = plan->dump();
  for (const std::string& stage : stages_of(*plan)) CHECK(has(text, " " + stage + " "));
  CHECK(has(text, "blk.1.ffn_down.weight [64,96] f32"));
  CHECK(has(text, "-- for wanted tokens only --"));
}

TEST_CASE("forced formats") {
  Sketch sketch("llama");
  const std::vector<int32_t> tokens = {1, 5, 9, 31};
  const std::vector<double> before = interpret(sketch.plan()->c(), tokens);
  const auto distance = [&](const Plan& plan) {
    const std::vector<double> after = interpret(plan.c(), tokens);
    double error = 0, norm = 0;
    for (size_t i = 0; i < after.size(); ++i) {
      error += (after[i] - before[i]) * (after[i] - before[i]);
      norm += before[i] * before[i];
    }
    return error / norm;
  };
  SUBCASE("by name") {
    const auto plan = sketch.plan({.force_qtype = {{"blk.*.ffn_up", "q8_0"}}, .lm_head_force_qtype = {}});
    check_rules(*plan);
    for (const BoundWeight& weight : plan->weights()) {
      const bool forced = has(weight.tensor.name, "ffn_up");
      CHECK(weight.format->name == std::string(forced ? "q8_0" : "f32"));
      CHECK(weight.owned.size() == (forced ? weight.c.bytes : 0));
    }
    REQUIRE(plan->notes().size() == 1);
    CHECK(plan->notes()[0] ==
          "2 weights were re-quantised from f32 to q8_0 for this run: blk.0.ffn_up.weight, "
          "blk.1.ffn_up.weight");
    CHECK(distance(*plan) > 0);
    CHECK(distance(*plan) < 1e-4);
  }
  SUBCASE("by role, the first match wins") {
    const auto plan = sketch.plan(
        {.force_qtype = {{"blk.0.attn_q.weight", "f16"}, {"attn_[qk]", "q4_0"}}, .lm_head_force_qtype = {}});
    CHECK(std::string(plan->c().weights[op_of(*plan, "blk.0.attn_q").weight[0]]->format->name) == "f16");
    CHECK(std::string(plan->c().weights[op_of(*plan, "blk.1.attn_q").weight[0]]->format->name) == "q4_0");
    CHECK(std::string(plan->c().weights[op_of(*plan, "blk.0.attn_k").weight[0]]->format->name) == "q4_0");
  }
  SUBCASE("the head alone, tied or not") {
    for (bool tied : {false, true}) {
      if (tied) sketch.remove("output.weight");
      const auto plan = sketch.plan({.force_qtype = {}, .lm_head_force_qtype = FormatName{"q8_0"}});
      check_rules(*plan);
      const apr_weight& head = *plan->c().weights[op_of(*plan, "logits").weight[0]];
      CHECK(std::string(head.format->name) == "q8_0");
      CHECK(std::string(head.role) == "output");
      CHECK(std::string(plan->c().weights[op_of(*plan, "embed").weight[0]]->format->name) == "f32");
    }
  }
  SUBCASE("to the same format does nothing") {
    const auto plan = sketch.plan({.force_qtype = {{"*", "f32"}}, .lm_head_force_qtype = {}});
    CHECK(plan->notes().empty());
    for (const BoundWeight& weight : plan->weights()) CHECK(weight.owned.empty());
  }
  SUBCASE("a pattern that matches nothing is an error") {
    CHECK(has(sketch.error({.force_qtype = {{"blk.7.*", "q8_0"}}, .lm_head_force_qtype = {}}),
              "pattern 'blk.7.*' matches no weight of sketch.gguf"));
    CHECK(has(sketch.error({.force_qtype = {{"attn_q", "f16"}, {"blk.0.attn_q.weight", "q8_0"}},
                            .lm_head_force_qtype = {}}),
              "pattern 'blk.0.attn_q.weight' matches no weight"));
  }
  SUBCASE("a block that does not divide K is an error") {
    CHECK(has(sketch.error({.force_qtype = {{"attn_v", "q4_k"}}, .lm_head_force_qtype = {}}),
              "tensor 'blk.0.attn_v.weight': rows of 64 columns are no whole number of q4_k blocks (256 "
              "columns each)"));
  }
  SUBCASE("a format that nobody provides is an error") {
    CHECK(has(sketch.error({.force_qtype = {{"attn_v", "vendor.nf4"}}, .lm_head_force_qtype = {}}),
              "format 'vendor.nf4' is needed, and no plugin provides it"));
  }
}
