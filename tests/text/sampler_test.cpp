#include "core/text/sampler.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>

#include "tests/base/expect_error.h"

using namespace apr;
using namespace apr_test;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

// Nothing filtered: the distribution itself.
SamplerOptions plain(double temperature = 1.0) {
  return {.temperature = temperature,
          .top_k = 0,
          .top_p = 1,
          .min_p = 0,
          .repeat_penalty = 1,
          .repeat_last_n = 64,
          .seed = 1};
}

std::vector<float> logits_of(const std::vector<double>& probabilities) {
  std::vector<float> out;
  for (const double p : probabilities) out.push_back(static_cast<float>(std::log(p)));
  return out;
}

std::map<int32_t, int> drawn(Sampler& sampler, const std::vector<float>& logits, int draws) {
  std::map<int32_t, int> counts;
  for (int i = 0; i < draws; ++i) ++counts[sampler.sample(logits)];
  return counts;
}

// Draws are as often as the probabilities say: chi-squared, far above the 99.99% quantile for a few tokens
// only if not.
void check_distribution(const SamplerOptions& options, const std::vector<float>& logits,
                        const std::map<int32_t, double>& expected) {
  constexpr int kDraws = 100000;
  Sampler sampler(options);
  const std::map<int32_t, int> counts = drawn(sampler, logits, kDraws);
  double chi = 0;
  for (const auto& [id, probability] : expected) {
    const auto found = counts.find(id);
    const double count = found == counts.end() ? 0 : found->second;
    chi += (count - probability * kDraws) * (count - probability * kDraws) / (probability * kDraws);
  }
  CHECK(chi < 30);
  for (const auto& [id, count] : counts) CHECK(expected.count(id) == 1);
}

std::set<int32_t> support(const SamplerOptions& options, const std::vector<float>& logits) {
  Sampler sampler(options);
  std::set<int32_t> out;
  for (const auto& [id, count] : drawn(sampler, logits, 4000)) out.insert(id);
  return out;
}

}  // namespace

TEST_CASE("temperature 0 takes the most probable token, the first among equals") {
  Sampler sampler({.temperature = 0});
  CHECK(sampler.sample(std::vector<float>{-1, 3, 2}) == 1);
  CHECK(sampler.sample(std::vector<float>{5, 7, 7, 1}) == 1);
  CHECK(sampler.sample(std::vector<float>{-kInf, -5}) == 1);
  SamplerOptions one = plain();
  one.top_k = 1;
  CHECK(Sampler(one).sample(std::vector<float>{5, 7, 7, 1}) == 1);
}

TEST_CASE("draws follow the distribution") {
  const std::vector<float> logits = logits_of({0.5, 0.3, 0.15, 0.05});
  check_distribution(plain(), logits, {{0, 0.5}, {1, 0.3}, {2, 0.15}, {3, 0.05}});
  // Temperature 0.5 squares probabilities, 2 takes their roots.
  check_distribution(plain(0.5), logits,
                     {{0, 0.25 / 0.365}, {1, 0.09 / 0.365}, {2, 0.0225 / 0.365}, {3, 0.0025 / 0.365}});
  const double roots = std::sqrt(0.5) + std::sqrt(0.3) + std::sqrt(0.15) + std::sqrt(0.05);
  check_distribution(plain(2), logits,
                     {{0, std::sqrt(0.5) / roots},
                      {1, std::sqrt(0.3) / roots},
                      {2, std::sqrt(0.15) / roots},
                      {3, std::sqrt(0.05) / roots}});
  // Large logits and impossible tokens.
  check_distribution(plain(), {3e38f, -kInf, 3e38f, -3e38f}, {{0, 0.5}, {2, 0.5}});
}

TEST_CASE("top-k, top-p and min-p keep what they say") {
  const std::vector<float> logits = logits_of({0.05, 0.5, 0.15, 0.3});
  SamplerOptions o = plain();
  o.top_k = 2;
  check_distribution(o, logits, {{1, 0.5 / 0.8}, {3, 0.3 / 0.8}});
  o = plain();
  o.top_p = 0.79;
  check_distribution(o, logits, {{1, 0.5 / 0.8}, {3, 0.3 / 0.8}});
  o.top_p = 0.81;
  CHECK(support(o, logits) == std::set<int32_t>{1, 2, 3});
  o.top_p = 0;
  CHECK(support(o, logits) == std::set<int32_t>{1});
  o = plain();
  o.min_p = 0.31;  // 0.15 is 0.3 of the highest
  check_distribution(o, logits, {{1, 0.5 / 0.8}, {3, 0.3 / 0.8}});
  o.min_p = 0.29;
  CHECK(support(o, logits) == std::set<int32_t>{1, 2, 3});
  o.min_p = 1;
  CHECK(support(o, logits) == std::set<int32_t>{1});
  // top-p counts what top-k left: 0.5 of 0.8 is 0.625.
  o = plain();
  o.top_k = 2;
  o.top_p = 0.62;
  CHECK(support(o, logits) == std::set<int32_t>{1});
  // Filters look at the distribution before temperature.
  o = plain(100);
  o.min_p = 0.31;
  CHECK(support(o, logits) == std::set<int32_t>{1, 3});
  // Of equal tokens, the first ones.
  o = plain();
  o.top_k = 2;
  CHECK(support(o, {1, 1, 1, 1}) == std::set<int32_t>{0, 1});
  o.top_k = 100;
  CHECK(support(o, {1, 1, 1, 1}).size() == 4);
}

TEST_CASE("filters agree with a full sort on random logits") {
  std::mt19937_64 random(17);
  for (int round = 0; round < 60; ++round) {
    std::vector<float> logits(600);
    for (float& logit : logits) logit = static_cast<float>(random() % 300) * 0.0167f;  // many ties
    SamplerOptions o = plain(1e9);  // flat: every kept token is drawn sooner or later
    o.top_k = static_cast<int64_t>(random() % 3 == 0 ? 0 : 1 + random() % 100);
    o.top_p = random() % 2 ? 1.0 : 0.05 + static_cast<double>(random() % 90) * 0.001;
    o.min_p = random() % 2 ? 0.0 : 0.8 + static_cast<double>(random() % 20) * 0.01;

    std::vector<int32_t> order(logits.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
    });
    if (o.top_k) order.resize(static_cast<size_t>(o.top_k));
    const auto weight = [&](int32_t id) {
      return std::exp(static_cast<double>(logits[static_cast<size_t>(id)]) -
                      logits[static_cast<size_t>(order[0])]);
    };
    double total = 0;
    for (const int32_t id : order) total += weight(id);
    double reached = 0;
    size_t kept = 0;
    while (kept < order.size() && (kept == 0 || reached < o.top_p * total)) reached += weight(order[kept++]);
    order.resize(kept);
    while (!order.empty() && weight(order.back()) < o.min_p) order.pop_back();
    const std::set<int32_t> expected(order.begin(), order.end());
    if (expected.size() > 100) continue;  // too many to be sure to see each one drawn
    CHECK(support(o, logits) == expected);
  }
}

TEST_CASE("the most probable tokens alone give the same text as all logits") {
  std::mt19937_64 random(23);
  int compared = 0;
  for (int round = 0; round < 300; ++round) {
    std::vector<float> logits(700);
    const bool ties = random() % 2 != 0;
    for (float& logit : logits)
      logit = ties ? static_cast<float>(random() % 40) * 0.25f - 5.0f
                   : static_cast<float>(random() % 1000000) * 1e-5f - 5.0f;
    SamplerOptions o;
    o.temperature = random() % 4 == 0 ? 0 : 1.5;
    o.top_k = static_cast<int64_t>(1 + random() % 60);
    o.top_p = random() % 2 ? 1.0 : 0.9;
    o.min_p = random() % 2 ? 0.0 : 0.05;
    o.repeat_penalty = random() % 2 ? 1.0 : 1.3;
    o.repeat_last_n = static_cast<int64_t>(random() % 20);
    o.seed = random();
    Sampler whole(o), few(o);
    const uint32_t needed = few.candidates_needed();
    REQUIRE(needed > 0);
    for (int token = 0; token < 30; ++token) {
      std::vector<apr_candidate> order;
      for (size_t i = 0; i < logits.size(); ++i) order.push_back({logits[i], static_cast<int32_t>(i)});
      std::stable_sort(order.begin(), order.end(),
                       [](const apr_candidate& a, const apr_candidate& b) { return a.logit > b.logit; });
      const int32_t a = whole.sample(logits),
                    b = few.sample(std::span<const apr_candidate>(order).first(needed));
      REQUIRE(a == b);
      whole.accept(a), few.accept(b);
      for (float& logit : logits)
        if (random() % 50 == 0) logit = -logit;
      ++compared;
    }
  }
  CHECK(compared == 9000);
}

TEST_CASE("how many candidates sampling needs") {
  SamplerOptions o;
  CHECK(Sampler(o).candidates_needed() == 40);
  CHECK_FALSE(Sampler(o).takes_argmax());
  o.repeat_penalty = 1.1;
  CHECK(Sampler(o).candidates_needed() == 40 + 64);
  o.repeat_penalty = 0.9;  // lifts recent tokens from wherever they are
  CHECK(Sampler(o).candidates_needed() == 0);
  o.repeat_penalty = 1;
  o.top_k = 0;
  CHECK(Sampler(o).candidates_needed() == 0);
  o.top_k = 1025;
  CHECK(Sampler(o).candidates_needed() == 0);
  o.top_k = 1;
  CHECK(Sampler(o).takes_argmax());
  o.top_k = 40, o.temperature = 0;
  CHECK(Sampler(o).takes_argmax());
  o.repeat_penalty = 1.5;
  CHECK_FALSE(Sampler(o).takes_argmax());
  CHECK(Sampler(o).candidates_needed() == 1 + 64);

  Sampler sampler(SamplerOptions{});
  const auto rejects = [&](std::vector<apr_candidate> candidates, const char* what) {
    CHECK_THROWS_WITH(sampler.sample(candidates), doctest::Contains(what));
  };
  rejects({}, "no candidates");
  rejects({{INFINITY, 7}, {1, 2}}, "the logit of token 7 is +infinity");
  rejects({{-INFINITY, 7}, {-INFINITY, 8}}, "no token may come");
}

TEST_CASE("recent tokens are penalised") {
  SamplerOptions o = plain(0);
  o.repeat_penalty = 2;
  o.repeat_last_n = 2;
  Sampler sampler(o);
  const std::vector<float> logits{4, 3, 1.5f, -1};
  CHECK(sampler.sample(logits) == 0);
  sampler.accept(0);
  CHECK(sampler.sample(logits) == 1);  // 4 / 2 < 3
  sampler.accept(1);
  CHECK(sampler.sample(logits) == 0);  // 2, 1.5, 1.5, -1
  sampler.accept(0);                   // counted once, however often it came
  sampler.accept(0);
  CHECK(sampler.sample(logits) == 1);  // 1 is no longer among the last two
  Sampler negative(o);
  negative.accept(0);
  CHECK(negative.sample(std::vector<float>{-1, -1.5f}) == 1);  // -1 * 2 < -1.5
  o.repeat_last_n = 0;
  Sampler off(o);
  off.accept(0);
  CHECK(off.sample(logits) == 0);
  Sampler outside(plain());
  outside.accept(99);
  CHECK(outside.sample(logits) >= 0);  // no penalty: history is not looked at
  o.repeat_last_n = 4;
  Sampler wrong(o);
  wrong.accept(99);
  CHECK_HAS(error_of([&] { return wrong.sample(logits); }),
            "token 99 was accepted, but there are logits for 4 tokens");
}

TEST_CASE("the same seed gives the same tokens, on every machine") {
  std::vector<float> logits(1000);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>((i * 7919) % 1000) * 0.01f;
  SamplerOptions o;
  o.seed = 42;
  std::vector<int32_t> first, second;
  Sampler a(o);
  Sampler b(o);
  for (int i = 0; i < 16; ++i) first.push_back(a.sample(logits));
  for (int i = 0; i < 16; ++i) second.push_back(b.sample(logits));
  CHECK(first == second);
  // Computed by a plain implementation in exact order with Python's floats.
  CHECK(first ==
        std::vector<int32_t>{963, 173, 704, 235, 198, 988, 346, 272, 988, 420, 704, 210, 309, 531, 346, 593});
  o.top_k = 0;
  o.top_p = 1;
  o.min_p = 0;
  o.seed = 43;
  Sampler c(o);
  std::vector<int32_t> third;
  for (int i = 0; i < 16; ++i) third.push_back(c.sample(logits));
  CHECK(third ==
        std::vector<int32_t>{568, 963, 667, 87, 173, 284, 815, 87, 100, 137, 112, 189, 124, 741, 581, 816});
}

TEST_CASE("logits that mean nothing are errors that say where") {
  std::vector<float> logits(100, 0.0f);
  logits[37] = std::numeric_limits<float>::quiet_NaN();
  for (const double temperature : {0.0, 0.8}) {
    CHECK_HAS(error_of([&] { return Sampler({.temperature = temperature}).sample(logits); }),
              "the logit of token 37 (of 100) is NaN");
  }
  // Either sign of NaN, in any place of a block.
  for (size_t length : {1, 63, 64, 65, 200}) {
    for (const float nan :
         {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN()}) {
      for (size_t at = 0; at < length; ++at) {
        std::vector<float> one(length, -kInf);
        one[at] = nan;
        CHECK_HAS(error_of([&] { return Sampler({.temperature = 0}).sample(one); }),
                  fmt::format("token {} (of {}) is NaN", at, length));
      }
    }
  }
  logits[5] = kInf;
  CHECK_HAS(error_of([&] { return Sampler({}).sample(logits); }),
            "the logit of token 5 (of 100) is +infinity");
  CHECK_HAS(error_of([&] { return Sampler({}).sample(std::vector<float>(8, -kInf)); }),
            "all 8 tokens are -infinity");
  CHECK_HAS(error_of([&] { return Sampler({}).sample(std::span<const float>()); }), "no logits");
}

TEST_CASE("options out of range are usage errors that name them") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto rejected = [](const SamplerOptions& o) {
    return error_of([&] { return Sampler(o).options().seed; });
  };
  CHECK_HAS(rejected({.temperature = -0.1}), "temperature is -0.1: it must be 0 (greedy) or more");
  CHECK_HAS(rejected({.temperature = nan}), "temperature");
  CHECK_HAS(rejected({.temperature = HUGE_VAL}), "temperature");
  CHECK_HAS(rejected({.top_k = -1}), "top-k is -1");
  CHECK_HAS(rejected({.top_p = 1.01}), "top-p is 1.01");
  CHECK_HAS(rejected({.top_p = nan}), "top-p");
  CHECK_HAS(rejected({.min_p = -1}), "min-p is -1");
  CHECK_HAS(rejected({.repeat_penalty = 0}), "repeat penalty is 0");
  CHECK_HAS(rejected({.repeat_last_n = -1}), "repeat last n is -1");
}

TEST_CASE("a vocabulary of 152k tokens is sampled in far less time than a token takes") {
  std::mt19937_64 random(19);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(151936);
  for (float& logit : logits) logit = normal(random);
  SamplerOptions all = plain(0.8);
  all.top_p = 0.95;
  for (const SamplerOptions& o : {SamplerOptions{}, SamplerOptions{.temperature = 0}, all}) {
    Sampler sampler(o);
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < 20; ++i) sampler.sample(logits);
    const double ms =
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count() / 20;
    MESSAGE("top-k " << o.top_k << ", temperature " << o.temperature << ": " << ms << " ms");
    CHECK(ms < 200);
  }
}
