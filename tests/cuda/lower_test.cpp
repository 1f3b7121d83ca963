// What a plan becomes: which operations share a kernel, in which order, and where values live.
#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "core/base/error.h"
#include "plugins/backend-cuda/failure.h"
#include "plugins/backend-cuda/program.h"
#include "ptx-templates/args.h"
#include "tests/cuda/support/tiny_plan.h"

using namespace apr;
using namespace apr::cuda;
using namespace apr::test;

namespace {

std::vector<std::string> stages(const Program& program) {
  std::vector<std::string> names;
  for (const Step& step : program.steps)
    names.push_back(std::string(to_string(step.spec.op)) + " " + step.stage);
  return names;
}

int64_t constant(const Step& step, const char* name) {
  for (const Constant& c : step.spec.constants)
    if (c.name == name) return c.value;
  FAIL(step.stage << " has no " << name);
  return -1;
}

TinyShape one_layer(const std::string& format = "f32") {
  TinyShape shape;
  shape.n_layers = 1;
  shape.format = format;
  return shape;
}

// Every operation of the plan is computed by exactly one launch of body or head.
void check_complete(const apr_plan& plan, uint32_t m, const LowerOptions& options) {
  std::vector<int> computed(plan.n_ops, 0);
  for (const bool head : {false, true})
    for (const Step& step : lower(plan, m, head, options).steps)
      for (const uint32_t op : step.ops) ++computed[op];
  for (uint32_t i = 0; i < plan.n_ops; ++i) {
    CAPTURE(plan.ops[i]->stage);
    CHECK(computed[i] == 1);
  }
}

}  // namespace

TEST_CASE("a decode layer is five launches") {
  TinyShape shape = one_layer("q4_k");
  shape.v_format = "q6_k", shape.bias = true, shape.qk_norm = true;
  const TinyPlan tiny(shape);
  const Program body = lower(tiny.plan(), 1, false, {});
  CHECK(stages(body) == std::vector<std::string>{"embed embed", "linear blk.0.attn_q",
                                                 "attention blk.0.attn_out", "linear blk.0.attn_output",
                                                 "linear blk.0.ffn_gate", "linear blk.0.ffn_down"});
  const Step& qkv = body.steps[1];
  CHECK(qkv.spec.segments.size() == 3);
  CHECK(qkv.spec.segments[2].format == "q6_k");
  CHECK(qkv.spec.segments[1].bias);
  CHECK(constant(qkv, "kNorm") == 1);
  CHECK(constant(qkv, "kInput") == kInputFloat);
  const Step& attention = body.steps[2];
  CHECK(constant(attention, "kFused") == 1);
  CHECK(constant(attention, "kQkNorm") == 1);
  CHECK(constant(attention, "kRopeKind") == kRopeAdjacent);
  CHECK(constant(attention, "kOutput") == kOutputInt8);
  CHECK(constant(body.steps[3], "kInput") == kInputInt8);
  CHECK(constant(body.steps[3], "kEpilogue") == kEpilogueResidual);
  CHECK(constant(body.steps[4], "kEpilogue") == kEpilogueSwiglu);
  CHECK(constant(body.steps[4], "kOutput") == kOutputInt8);
  CHECK(constant(body.steps[5], "kInput") == kInputInt8);
  CHECK(stages(lower(tiny.plan(), 1, true, {})) ==
        std::vector<std::string>{"linear logits", "argmax argmax"});
}

TEST_CASE(
    "a few tokens: rotation and KV append are a kernel, since rows of one sequence need each other's keys") {
  const TinyPlan tiny(one_layer());
  const Program body = lower(tiny.plan(), 4, false, {});
  CHECK(stages(body) == std::vector<std::string>{"embed embed", "linear blk.0.attn_q",
                                                 "rope_kv blk.0.attn_q_rope", "attention blk.0.attn_out",
                                                 "linear blk.0.attn_output", "linear blk.0.ffn_gate",
                                                 "linear blk.0.ffn_down"});
  CHECK(constant(body.steps[3], "kFused") == 0);
  CHECK(constant(body.steps[3], "kOutput") == kOutputFloat);
  CHECK(body.steps[2].spec.m == 0);
  CHECK(body.steps[1].spec.m == 4);
}

TEST_CASE("a prompt: activations are converted once for tensor cores, SwiGLU while converting") {
  const TinyPlan tiny(one_layer("q8_0"));
  const Program body = lower(tiny.plan(), 0, false, {});
  CHECK(stages(body) == std::vector<std::string>{
                            "embed embed", "rms_norm blk.0.attn_norm", "linear blk.0.attn_q",
                            "rope_kv blk.0.attn_q_rope", "attention blk.0.attn_out", "convert blk.0.attn_out",
                            "linear blk.0.attn_output", "rms_norm blk.0.ffn_norm", "linear blk.0.ffn_gate",
                            "convert blk.0.ffn_act", "linear blk.0.ffn_down"});
  CHECK(constant(body.steps[1], "kOutput") == kOutputF16);
  CHECK(constant(body.steps[2], "kInput") == kInputF16);
  CHECK(constant(body.steps[9], "kSwiglu") == 1);
  CHECK(body.steps[2].spec.view == View::Float);
  const TinyPlan floats(one_layer("f32"));
  CHECK(constant(lower(floats.plan(), 0, false, {}).steps[1], "kOutput") == kOutputBf16x2);
  CHECK(constant(lower(tiny.plan(), 0, false, {true, true}).steps[1], "kOutput") == kOutputF16x2);
}

TEST_CASE("unfused: a kernel per operation, and conversions where tensor cores need them") {
  TinyShape shape = one_layer("q4_k");
  shape.qk_norm = true;
  const TinyPlan tiny(shape);
  const Program body = lower(tiny.plan(), 1, false, {false, false});
  std::set<std::string> ops;
  for (const Step& step : body.steps) {
    CHECK(step.ops.size() <= 1);
    ops.insert(to_string(step.spec.op));
  }
  CHECK(ops == std::set<std::string>{"embed", "rms_norm", "linear", "rope", "rope_kv", "attention", "add",
                                     "swiglu"});
  for (const Buffer& buffer : body.buffers) CHECK(buffer.form == Form::Float);
}

TEST_CASE("every operation is computed once, in every form of every model") {
  std::vector<TinyShape> shapes(6, one_layer());
  shapes[0].n_layers = 3;
  shapes[1].qk_norm = shapes[1].bias = true;
  shapes[2].rope = APR_ROPE_NONE;
  shapes[3].tied = true, shapes[3].format = "q8_0";
  shapes[4].format = "q4_k", shapes[4].v_format = "q6_k";
  shapes[5].format = "q8_0", shapes[5].v_format = "f16";
  for (const TinyShape& shape : shapes)
    for (const uint32_t m : {1u, 2u, 8u, 0u})
      for (const LowerOptions& options : {LowerOptions{true, false}, LowerOptions{false, false},
                                          LowerOptions{true, true}, LowerOptions{false, true}}) {
        const TinyPlan tiny(shape);
        check_complete(tiny.plan(), m, options);
      }
}

TEST_CASE("matrices that want their input in different forms do not share a kernel") {
  TinyShape shape = one_layer("q8_0");
  shape.v_format = "f32";
  const TinyPlan tiny(shape);
  const auto decode = stages(lower(tiny.plan(), 1, false, {}));
  CHECK(std::count(decode.begin(), decode.end(), "linear blk.0.attn_v") == 1);
  const Program prompt = lower(tiny.plan(), 0, false, {});
  std::multiset<int64_t> forms;
  for (const Step& step : prompt.steps)
    if (step.spec.op == Op::RmsNorm) forms.insert(constant(step, "kOutput"));
  CHECK(forms == std::multiset<int64_t>{kOutputF16, kOutputF16, kOutputBf16x2});
  // ffn_down is float, so nobody quantises what it reads.
  for (const Step& step : lower(tiny.plan(), 1, false, {}).steps)
    if (step.stage == "blk.0.ffn_gate") CHECK(constant(step, "kOutput") == kOutputFloat);
}

TEST_CASE("a value that others read too stays where they find it") {
  TinyPlan tiny(one_layer());
  // The second norm's input also goes somewhere else: the residual add may not vanish, and does not.
  apr_op& down = tiny.op("blk.0.ffn_down");
  apr_op& residual = tiny.op("blk.0.ffn_residual");
  residual.in[0] = down.out, residual.in[1] = down.out;  // reads the linear twice: no single reader any more
  const auto names = stages(lower(tiny.plan(), 1, false, {}));
  CHECK(std::count(names.begin(), names.end(), "add blk.0.ffn_residual") == 1);
}

TEST_CASE("attention with a k that is not rotated like q is computed step by step") {
  TinyPlan tiny(one_layer());
  tiny.op("blk.0.attn_k_rope").scale = 2.0f;
  const auto names = stages(lower(tiny.plan(), 1, false, {}));
  CHECK(std::count(names.begin(), names.end(), "rope blk.0.attn_q_rope") == 1);
  CHECK(std::count(names.begin(), names.end(), "rope blk.0.attn_k_rope") == 1);
  check_complete(tiny.plan(), 1, {});
}

TEST_CASE("plans that contradict themselves are refused with the stage's name") {
  const auto refused = [](const char* message, apr_status status, void (*damage)(TinyPlan&)) {
    CAPTURE(message);
    TinyPlan tiny(one_layer());
    damage(tiny);
    try {
      lower(tiny.plan(), 1, false, {});
      FAIL("accepted");
    } catch (const Failure& e) {
      CHECK(std::string(e.what()) == message);
      CHECK(e.status() == status);
    }
  };
  refused("plan of tiny: stage blk.0.attn_norm reads a value before it is computed", APR_INVALID,
          [](TinyPlan& t) { t.op("blk.0.attn_norm").in[0] = t.op("blk.0.ffn_residual").out; });
  refused("plan of tiny: stage blk.0.ffn_act has an input of width 256 and a result of width 512",
          APR_INVALID, [](TinyPlan& t) { t.op("blk.0.ffn_act").in[1] = t.op("blk.0.ffn_norm").out; });
  refused("plan of tiny: stage blk.0.attn_out has 5 heads of 64 columns in a value of width 256", APR_INVALID,
          [](TinyPlan& t) { t.op("blk.0.attn_out").n_heads = 5; });
  refused("plan of tiny: stage blk.0.attn_q_rope rotates 65 of 64 columns of a head", APR_INVALID,
          [](TinyPlan& t) { t.op("blk.0.attn_q_rope").rope_dims = 65; });
  refused("plan of tiny: stage blk.0.attn_norm lacks a vector", APR_INVALID,
          [](TinyPlan& t) { t.op("blk.0.attn_norm").vector[0] = -1; });
  refused("plan of tiny: stage blk.0.ffn_down lacks a weight", APR_INVALID,
          [](TinyPlan& t) { t.op("blk.0.ffn_down").weight[0] = 1000; });
  refused("stage blk.0.ffn_act: operation kind 42 is newer than this backend", APR_UNSUPPORTED,
          [](TinyPlan& t) { t.op("blk.0.ffn_act").kind = static_cast<apr_op_kind>(42); });
}

TEST_CASE("buffers whose lives overlap do not share memory, and memory is reused") {
  TinyShape shape;
  shape.n_layers = 6;
  const TinyPlan tiny(shape);
  for (const LowerOptions& options : {LowerOptions{}, LowerOptions{false, false}})
    for (const uint32_t m : {1u, 0u}) {
      const Program program = lower(tiny.plan(), m, false, options);
      const uint32_t rows = 40;
      const Arena arena = place_buffers(program, rows);
      std::vector<std::pair<size_t, size_t>> lives(program.buffers.size(), {SIZE_MAX, 0});
      uint64_t total = 0;
      for (size_t i = 0; i < program.steps.size(); ++i) {
        std::vector<int32_t> used(program.steps[i].outputs);
        used.insert(used.end(), program.steps[i].input, program.steps[i].input + 3);
        used.push_back(program.steps[i].residual);
        for (const int32_t b : used) {
          if (b < 0) continue;
          auto& life = lives[static_cast<size_t>(b)];
          life = {std::min(life.first, i), std::max(life.second, i)};
        }
      }
      for (size_t a = 0; a < lives.size(); ++a) {
        if (arena.offsets[a] == UINT64_MAX) continue;
        const uint64_t a_end = arena.offsets[a] + buffer_layout(program.buffers[a], rows).bytes;
        total += a_end - arena.offsets[a];
        CHECK(a_end <= arena.bytes);
        CHECK(arena.offsets[a] % 256 == 0);
        for (size_t b = 0; b < a; ++b) {
          if (arena.offsets[b] == UINT64_MAX) continue;
          const bool together = lives[a].first <= lives[b].second && lives[b].first <= lives[a].second;
          const bool overlap =
              arena.offsets[a] < arena.offsets[b] + buffer_layout(program.buffers[b], rows).bytes &&
              arena.offsets[b] < a_end;
          CHECK_FALSE((together && overlap));
        }
      }
      CHECK(arena.bytes * 3 < total);  // six layers in the room of less than two
    }
}
