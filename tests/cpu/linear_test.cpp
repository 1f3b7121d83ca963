// Matrix products against double precision over the same int8 activations (or float ones), for every instruction set,
// number of tokens and kind of weight.
#include <doctest/doctest.h>

#include <cstring>

#include "support.h"

using namespace apr::test;

namespace {

struct Case {
  const apr_quant_format* format;
  uint64_t n, k;
  Range range;
};

// sum |w| |x|: what a product's rounding errors are measured by.
struct Reference {
  std::vector<double> y, size;
};

Reference reference(const Packed& w, const std::vector<float>& x, uint32_t rows, bool precise,
                    const std::vector<float>& bias) {
  Reference r;
  const bool integer = w.format->int_group != 0 && !precise;
  std::vector<IntRow> taken;
  if (integer)
    for (uint64_t n = 0; n < w.n; ++n) taken.push_back(take_apart(w, n));
  for (uint32_t m = 0; m < rows; ++m) {
    const float* row = x.data() + m * w.k;
    const QuantizedRow q = integer ? quantize_row(row, w.k) : QuantizedRow{};
    for (uint64_t n = 0; n < w.n; ++n) {
      double y = bias.empty() ? 0 : bias[n], size = std::abs(y) + 1e-30;
      for (uint64_t k = 0; k < w.k; ++k) {
        double weight = w.dense[n * w.k + k], value = row[k];
        if (integer) {
          const uint64_t g = k / w.format->int_group;
          value = double{q.scale[k / 32]} * q.q[k];
          // Scale and offset are applied apart, so they may cancel.
          const double a = double{taken[n].scale[g]} * taken[n].q[k], b = taken[n].offset[g];
          weight = a + b;
          size += (std::abs(a) + std::abs(b)) * std::abs(value);
        } else {
          size += std::abs(weight * value);
        }
        y += weight * value;
      }
      r.y.push_back(y);
      r.size.push_back(size);
    }
  }
  return r;
}

void check(const std::vector<float>& got, const Reference& r) {
  REQUIRE(got.size() == r.y.size());
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(got[i] - r.y[i]) / r.size[i];
    worst = error <= worst ? worst : error;
  }
  CHECK(worst < 1e-6);
}

}  // namespace

TEST_CASE("products") {
  const Case cases[] = {{&kFloat32, 40, 100, Range::Bits8},  {&kFloat32, 33, 1030, Range::Bits8},
                        {&kFloat32, 1, 3, Range::Bits8},     {&kInt32, 70, 128, Range::Bits4},
                        {&kInt32, 33, 1088, Range::Bits8},   {&kInt32, 64, 64, Range::Signed4},
                        {&kInt32, 31, 576, Range::Bits6},    {&kInt16, 50, 96, Range::Bits6},
                        {&kInt16, 100, 544, Range::Bits8},   {&kInt16, 32, 32, Range::Bits4},
                        {&kInt16, 35, 1056, Range::Signed4}, {&kInt128, 40, 768, Range::Bits8},
                        {&kInt128, 37, 256, Range::Bits4},   {&kInt48, 65, 144, Range::Bits8},
                        {&kInt48, 40, 1008, Range::Bits6}};
  uint32_t seed = 10;
  for (const Case& c : cases) {
    CAPTURE(std::string(c.format->name));
    CAPTURE(c.n);
    CAPTURE(c.k);
    const uint32_t most = 29;
    const Packed w = random_weights(*c.format, c.n, c.k, seed++, c.range);
    const std::vector<float> x = edgy_rows(most, static_cast<uint32_t>(c.k), seed++),
                             bias = edgy_rows(1, static_cast<uint32_t>(c.n), seed++);
    for (const bool biased : {false, true})
      for (const bool precise : {false, true}) {
        if (precise && c.format->int_group == 0) continue;
        CAPTURE(biased);
        CAPTURE(precise);
        PlanMaker maker;
        const int32_t in = maker.embed("a", maker.weight(exact_weights(most, c.k, x)));
        const int32_t y = maker.linear("x", in, maker.weight(w), biased ? maker.vector(bias) : -1);
        maker.head();
        maker.linear("logits", y, maker.weight(random_weights(kFloat32, 3, c.n, 9)));
        const Reference r = reference(w, x, most, precise, biased ? bias : std::vector<float>{});
        for (const std::string& isa : instruction_sets()) {
          CAPTURE(isa);
          Loaded loaded(maker.plan(), {isa, 2}, {64, 1, 64, precise});
          REQUIRE_MESSAGE(loaded.ok(), loaded.error());
          for (const uint32_t rows : {1u, 3u, 4u, 5u, 6u, 7u, 11u, most}) {
            CAPTURE(rows);
            Reference part = r;
            part.y.resize(rows * c.n);
            part.size.resize(rows * c.n);
            check(loaded.taps(count_up(rows))["x"], part);
          }
        }
      }
  }
}

TEST_CASE("products of one input, and a swiglu of two of them") {
  // Gate and up of different formats, a third product beside them, and one that takes the swiglu's int8 form.
  constexpr uint32_t kWidth = 192, kFfn = 464;  // 464: the last int8 block is half full
  const std::vector<float> x = edgy_rows(40, kWidth, 5);
  PlanMaker maker;
  const int32_t in = maker.embed("a", maker.weight(exact_weights(40, kWidth, x)));
  const int32_t gate = maker.linear("gate", in, maker.weight(random_weights(kInt32, kFfn, kWidth, 6)),
                                    maker.vector(edgy_rows(1, kFfn, 11)));
  const int32_t other = maker.linear("other", in, maker.weight(random_weights(kInt16, 77, kWidth, 7)));
  const int32_t up = maker.linear("up", in, maker.weight(random_weights(kInt48, kFfn, kWidth, 8)));
  const int32_t act = maker.swiglu("act", gate, up);
  (void)other;
  maker.head();
  maker.linear("logits", act, maker.weight(random_weights(kFloat32, 3, kFfn, 10)));
  for (const std::string& isa : instruction_sets())
    for (const uint32_t threads : {1u, 2u, 3u})
      for (const uint32_t rows : {1u, 4u, 5u, 40u}) {
        CAPTURE(isa);
        CAPTURE(rows);
        Loaded loaded(maker.plan(), {isa, threads});
        REQUIRE_MESSAGE(loaded.ok(), loaded.error());
        const std::vector<float> untapped = loaded.step(count_up(rows)).logits;
        auto stages = loaded.taps(count_up(rows));
        CHECK(stages["logits"] == untapped);
        const auto &g = stages["gate"], &u = stages["up"], &a = stages["act"];
        REQUIRE(a.size() == rows * kFfn);
        REQUIRE(stages["other"].size() == rows * 77);
        for (size_t i = 0; i < a.size(); ++i) {
          const double expected = g[i] / (1 + std::exp(-double{g[i]})) * u[i];
          REQUIRE(std::abs(a[i] - expected) <= 6e-7 * std::abs(expected) + 1e-30);
        }
      }
}

TEST_CASE("the int8 form of a swiglu is that of its floats") {
  constexpr uint32_t kWidth = 96, kFfn = 240;  // 240 = 5 * 48 = 7.5 * 32
  const std::vector<float> x = edgy_rows(40, kWidth, 5);
  const Packed w = random_weights(kInt48, 50, kFfn, 9);
  PlanMaker maker;
  const int32_t in = maker.embed("a", maker.weight(exact_weights(40, kWidth, x)));
  const int32_t act =
      maker.swiglu("act", maker.linear("gate", in, maker.weight(random_weights(kInt16, kFfn, kWidth, 6))),
                   maker.linear("up", in, maker.weight(random_weights(kInt48, kFfn, kWidth, 7))));
  const int32_t y = maker.linear("x", act, maker.weight(w));
  maker.head();
  maker.linear("logits", y, maker.weight(random_weights(kFloat32, 3, 50, 10)));
  for (const std::string& isa : instruction_sets())
    for (const uint32_t rows : {1u, 4u, 5u, 40u}) {
      CAPTURE(isa);
      CAPTURE(rows);
      Loaded loaded(maker.plan(), {isa, 2});
      REQUIRE_MESSAGE(loaded.ok(), loaded.error());
      auto stages = loaded.taps(count_up(rows));
      check(stages["x"], reference(w, stages["act"], rows, false, {}));
    }
}

TEST_CASE("activations that are no numbers show in every output") {
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    std::vector<float> x = edgy_rows(8, 64, 3);
    x[2 * 64 + 40] = bad;
    PlanMaker maker;
    const int32_t in = maker.embed("a", maker.weight(exact_weights(8, 64, x)));
    maker.head();
    maker.linear("logits", in, maker.weight(random_weights(kInt32, 40, 64, 6)));
    for (const std::string& isa : instruction_sets())
      for (const uint32_t rows : {3u, 8u}) {
        CAPTURE(isa);
        CAPTURE(bad);
        CAPTURE(rows);
        Loaded loaded(maker.plan(), {isa}, {.n_top = 2});
        REQUIRE_MESSAGE(loaded.ok(), loaded.error());
        const Result r = loaded.step(count_up(rows), true, true);
        REQUIRE(r.status == APR_OK);
        CHECK(r.top[2 * 2].token == -1);
        CHECK(std::isnan(r.top[2 * 2 + 1].logit));
        CHECK(r.top[2].token == r.argmax[1]);
        for (uint32_t m = 0; m < rows; ++m)
          for (uint32_t n = 0; n < 40; ++n) REQUIRE(std::isnan(r.logits[m * 40 + n]) == (m == 2));
        CHECK(r.argmax[2] == -1);
        CHECK(r.argmax[1] >= 0);
      }
  }
}

TEST_CASE("huge activations do not overflow on the way to int8") {
  // A block's sum of 32 of them is still a float.
  std::vector<float> x(6 * 64, 1e36f);
  for (size_t i = 0; i < x.size(); i += 3) x[i] = -9e36f;
  PlanMaker maker;
  const int32_t in = maker.embed("a", maker.weight(exact_weights(6, 64, x)));
  maker.head();
  Packed w = random_weights(kInt32, 40, 64, 6);
  // Weights of 1e-37, so that the product is representable.
  for (uint64_t b = 0; b < w.bytes.size(); b += kInt32.block_bytes)
    for (int g = 0; g < 4; ++g) {
      float f;
      std::memcpy(&f, w.bytes.data() + b + 4 * g, 4);
      f *= 1e-36f;
      std::memcpy(w.bytes.data() + b + 4 * g, &f, 4);
    }
  maker.linear("logits", in, maker.weight(w));
  for (const std::string& isa : instruction_sets()) {
    Loaded loaded(maker.plan(), {isa});
    const Result r = loaded.step(count_up(6));
    for (const float y : r.logits) REQUIRE(std::isfinite(y));
  }
}
