// Frequencies against literal values from the published formulas, computed elsewhere: YaRN and Llama 3 as in
// Hugging Face transformers' modeling_rope_utils.py.
#include "core/plan/rope.h"

#include <doctest/doctest.h>

#include "tests/plan/sketch.h"

using namespace apr;
using namespace apr::test;

namespace {

void check_table(const apr_vector& table, const std::vector<std::pair<size_t, double>>& expected) {
  for (const auto& each : expected) {
    const size_t pair = each.first;
    CAPTURE(pair);
    CHECK(table.data[pair] == doctest::Approx(each.second).epsilon(3e-7));
  }
}

const apr_vector& frequencies(const Plan& plan) {
  return *plan.c().vectors[op_of(plan, "blk.0.attn_q_rope").vector[0]];
}

RopeParameters plain(uint32_t dims, double base) {
  return {.dims = dims,
          .freq_base = base,
          .scaling = RopeScaling::None,
          .factor = 1,
          .original_context = 32768,
          .attention_factor = 1,
          .yarn_extrapolation = 1,
          .yarn_beta_fast = 32,
          .yarn_beta_slow = 1,
          .yarn_log_multiplier = 0};
}

RopeParameters qwen25_yarn() {
  RopeParameters rope = plain(128, 1e6);
  rope.scaling = RopeScaling::Yarn;
  rope.factor = 4;
  return rope;
}

}  // namespace

TEST_CASE("without scaling") {
  const auto plan = Sketch("llama").plan();
  const apr_vector& table = frequencies(*plan);
  CHECK(table.n == 8);
  check_table(table, {{0, 1},
                      {1, 0.316227766},
                      {2, 0.1},
                      {3, 0.0316227766},
                      {4, 0.01},
                      {5, 0.00316227766},
                      {7, 0.000316227766}});
  CHECK(op_of(*plan, "blk.1.attn_k_rope").scale == 1);
}

TEST_CASE("linear scaling, by the new key and the old one") {
  for (const bool old_key : {false, true}) {
    Sketch sketch("llama");
    if (old_key) {
      sketch.set("rope.scale_linear", 4.0);
    } else {
      sketch.set("rope.scaling.type", std::string("linear"));
      sketch.set("rope.scaling.factor", 4.0);
    }
    const auto plan = sketch.plan();
    check_table(frequencies(*plan), {{0, 0.25}, {1, 0.0790569415}, {2, 0.025}, {7, 0.0000790569415}});
    CHECK(op_of(*plan, "blk.0.attn_q_rope").scale == 1);
  }
  Sketch none("llama");
  none.set("rope.scaling.type", std::string("none"));
  none.set("rope.scaling.factor", 4.0);
  check_table(frequencies(*none.plan()), {{0, 1}, {2, 0.1}});
}

TEST_CASE("Llama 3: the tensor's factors divide") {
  Sketch sketch("llama");
  sketch.set("rope.freq_base", 500000.0);
  // Factor 8, low 1, high 4, original context 8192, for 16 columns.
  sketch.tensor("rope_freqs.weight", {8}, {1, 1, 1, 1, 2.6945296878947333f, 8, 8, 8});
  check_table(frequencies(*sketch.plan()), {{0, 1},
                                            {1, 0.193922745},
                                            {2, 0.0376060309},
                                            {3, 0.00729266474},
                                            {4, 0.000524846161},
                                            {5, 3.4281022e-05},
                                            {6, 6.64786987e-06},
                                            {7, 1.28917317e-06}});
}

TEST_CASE("yarn, as Qwen 2.5 uses it for 128 Ki tokens") {
  const RopeTable table = rope_table(qwen25_yarn(), {});
  REQUIRE(table.inverse_frequencies.size() == 64);
  const apr_vector view{sizeof(apr_vector), "", 64, table.inverse_frequencies.data()};
  check_table(view, {{0, 1},
                     {1, 0.805842188},
                     {20, 0.0133352143},
                     {23, 0.00697830585},  // the last pair that keeps its own frequency
                     {24, 0.00537532149},  // mixed
                     {30, 0.00106436098},
                     {35, 0.000246258407},
                     {38, 9.2623017e-05},
                     {39, 6.49039432e-05},
                     {40, 4.44569853e-05},  // from here on a quarter
                     {50, 5.13381257e-06},
                     {63, 3.1023444e-07}});
  CHECK(table.scale == doctest::Approx(1.138629436111989).epsilon(1e-7));
}

TEST_CASE("yarn from metadata reaches the operations") {
  Sketch sketch("qwen2");
  sketch.set("attention.key_length", uint64_t{16});
  sketch.set("rope.scaling.type", std::string("yarn"));
  sketch.set("rope.scaling.factor", 4.0);
  sketch.set("rope.scaling.original_context_length", uint64_t{32});
  const auto plan = sketch.plan();
  CHECK(op_of(*plan, "blk.0.attn_q_rope").scale == doctest::Approx(1.138629436).epsilon(1e-7));
  CHECK(op_of(*plan, "blk.1.attn_k_rope").scale == doctest::Approx(1.138629436).epsilon(1e-7));
  // 16 columns, base 10000, 32 tokens: pairs 0 (below 32 turns) to ceil(1.41) = 2 are the ramp.
  check_table(frequencies(*plan),
              {{0, 1}, {1, 0.316227766 * (0.5 + 0.5 / 4)}, {2, 0.1 / 4}, {7, 0.000316227766 / 4}});
}

TEST_CASE("yarn's magnitude") {
  RopeParameters rope = qwen25_yarn();
  rope.attention_factor = 0.5;
  CHECK(rope_table(rope, {}).scale == doctest::Approx(0.5693147180559945));
  rope.attention_factor = 1;
  rope.yarn_log_multiplier = 1;  // mscale_all_dim 1: nothing is left for the rotated pairs
  CHECK(rope_table(rope, {}).scale == 1);
  rope.yarn_log_multiplier = 0.5;
  CHECK(rope_table(rope, {}).scale == doctest::Approx(1.138629436111989 / 1.0693147180559945));
  rope.yarn_extrapolation = 0;  // plain interpolation
  const RopeTable table = rope_table(rope, {});
  CHECK(table.scale == 1);
  CHECK(table.inverse_frequencies[0] == 0.25f);
  rope = qwen25_yarn();
  rope.factor = 1;
  CHECK(rope_table(rope, {}).scale == 1);
  CHECK(rope_table(rope, {}).inverse_frequencies == rope_table(plain(128, 1e6), {}).inverse_frequencies);
}
