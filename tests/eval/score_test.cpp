// Scores and figures against the definitions, computed plainly in double.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "core/eval/score.h"
#include "core/eval/summary.h"

using namespace apr;

namespace {

constexpr size_t kVocab = 1000;

std::vector<float> random_logits(uint32_t seed, float spread, float mean = 0) {
  std::mt19937 random(seed);
  std::normal_distribution<float> draw(mean, spread);
  std::vector<float> logits(kVocab);
  for (float& x : logits) x = draw(random);
  return logits;
}

// softmax without any trick: fine while logits are small.
std::vector<double> probabilities(const std::vector<float>& logits) {
  std::vector<double> p(logits.size());
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) sum += p[i] = std::exp(static_cast<double>(logits[i]));
  for (double& x : p) x /= sum;
  return p;
}

std::vector<float> log_p_of(const std::vector<float>& logits) {
  std::vector<float> out(logits.size());
  REQUIRE(log_probabilities(logits, out.data()));
  return out;
}

}  // namespace

TEST_CASE("a score is what the definitions say") {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    const std::vector<float> logits = random_logits(seed, 3), reference = random_logits(seed + 100, 3);
    const std::vector<double> p = probabilities(logits), q = probabilities(reference);
    const auto target = static_cast<int32_t>(seed * 37 % kVocab);
    const TokenScore got = score(log_p_of(logits), log_p_of(reference), target);
    const auto t = static_cast<size_t>(target);
    double kl = 0;
    for (size_t i = 0; i < kVocab; ++i) kl += q[i] * std::log(q[i] / p[i]);
    CHECK(got.nll == doctest::Approx(-std::log(p[t])).epsilon(1e-6));
    CHECK(got.nll_reference == doctest::Approx(-std::log(q[t])).epsilon(1e-6));
    CHECK(got.kl == doctest::Approx(kl).epsilon(1e-6));
    CHECK(got.dp == doctest::Approx(p[t] - q[t]).epsilon(1e-5));
    const auto top = [](const std::vector<double>& v) {
      return std::max_element(v.begin(), v.end()) - v.begin();
    };
    CHECK((got.same_top == 1) == (top(p) == top(q)));
    CHECK(score(log_p_of(logits), target).nll == got.nll);
  }
}

TEST_CASE("a small divergence is not lost in rounding") {
  const std::vector<float> reference = random_logits(7, 3);
  std::vector<float> logits = reference;
  std::mt19937 random(8);
  std::normal_distribution<float> noise(0, 0.01f);
  for (float& x : logits) x += noise(random);
  const std::vector<double> p = probabilities(logits), q = probabilities(reference);
  double kl = 0;
  for (size_t i = 0; i < kVocab; ++i) kl += q[i] * std::log(q[i] / p[i]);
  REQUIRE(kl > 1e-5);
  CHECK(std::fabs(score(log_p_of(logits), log_p_of(reference), 3).kl - kl) < 3e-7);
}

TEST_CASE("a model against itself differs in nothing") {
  const std::vector<float> log_p = log_p_of(random_logits(3, 8));
  const TokenScore same = score(log_p, log_p, 11);
  CHECK(same.kl == 0);
  CHECK(same.dp == 0);
  CHECK(same.same_top == 1);
}

TEST_CASE("logits of any size, and those that are none") {
  std::vector<float> logits = random_logits(5, 3), shifted = logits;
  for (float& x : shifted) x += 4096;
  const std::vector<float> a = log_p_of(logits), b = log_p_of(shifted);
  for (size_t i = 0; i < kVocab; ++i) CHECK(a[i] == doctest::Approx(b[i]).epsilon(1e-3));
  std::vector<float> out(kVocab);
  const float infinity = std::numeric_limits<float>::infinity();
  logits[17] = -infinity;  // a token that is ruled out
  REQUIRE(log_probabilities(logits, out.data()));
  CHECK(out[17] == -infinity);
  CHECK(score(out, out, 3).kl == 0);
  CHECK(std::isinf(score(out, log_p_of(shifted), 3).kl));
  logits[17] = infinity;
  CHECK_FALSE(log_probabilities(logits, out.data()));
  logits[17] = std::nanf("");
  CHECK_FALSE(log_probabilities(logits, out.data()));
  std::fill(logits.begin(), logits.end(), -infinity);
  CHECK_FALSE(log_probabilities(logits, out.data()));
}

TEST_CASE("figures of a list that can be reckoned by hand") {
  const std::vector<double> values = {1, 2, 3, 4};
  const double error = std::sqrt(5.0 / 3 / 4);  // variance 5/3
  CHECK(mean_of(values).value == 2.5);
  CHECK(mean_of(values).error == doctest::Approx(error));
  CHECK(exp_mean_of(values).value == doctest::Approx(std::exp(2.5)));
  CHECK(exp_mean_of(values).error == doctest::Approx(std::exp(2.5) * error));
  CHECK(rms_of(values).value == doctest::Approx(std::sqrt(7.5)));
  // squares 1 4 9 16: mean 7.5, variance 129/3
  CHECK(rms_of(values).error == doctest::Approx(std::sqrt(129.0 / 3 / 4) / (2 * std::sqrt(7.5))));
  CHECK(quantile_of(values, 0.5).value == 2.5);
  CHECK(quantile_of(values, 1).value == 4);
  CHECK(std::isnan(quantile_of(values, 1).error));
  const std::vector<double> votes = {1, 1, 1, 0};
  CHECK(share_of(votes).value == 0.75);
  CHECK(share_of(votes).error == doctest::Approx(std::sqrt(0.75 * 0.25 / 3)));
  CHECK(std::isnan(mean_of(std::vector<double>{1.0}).error));
}

TEST_CASE("standard errors are as large as the figures really scatter") {
  std::mt19937 random(2);
  std::exponential_distribution<double> draw(1);
  constexpr size_t kRuns = 400, kSize = 2000;
  struct Figure {
    std::vector<double> values;
    double errors = 0;
    void add(const Estimate& e) { values.push_back(e.value), errors += e.error; }
    double ratio() const {  // of the scatter to what the errors promised
      const double scatter = mean_of(values).error * std::sqrt(static_cast<double>(values.size()));
      return scatter / (errors / static_cast<double>(values.size()));
    }
  };
  Figure mean, exp_mean, rms, median, q90, q99, share;
  for (size_t run = 0; run < kRuns; ++run) {
    std::vector<double> values(kSize), above(kSize);
    for (double& v : values) v = draw(random);
    for (size_t i = 0; i < kSize; ++i) above[i] = values[i] > 0.3 ? 1 : 0;
    mean.add(mean_of(values)), exp_mean.add(exp_mean_of(values)), rms.add(rms_of(values));
    share.add(share_of(above));
    std::sort(values.begin(), values.end());
    median.add(quantile_of(values, 0.5)), q90.add(quantile_of(values, 0.9)),
        q99.add(quantile_of(values, 0.99));
  }
  for (const Figure* figure : {&mean, &exp_mean, &rms, &share, &median, &q90, &q99})
    CHECK(figure->ratio() == doctest::Approx(1).epsilon(0.15));
}

TEST_CASE("a summary is its columns' figures") {
  std::vector<TokenScore> scores;
  std::mt19937 random(4);
  std::exponential_distribution<double> draw(1);
  double nll = 0, reference = 0, kl = 0, squares = 0, same = 0, largest = 0;
  for (int i = 0; i < 500; ++i) {
    TokenScore s;
    s.nll_reference = draw(random), s.nll = s.nll_reference + 0.1 * draw(random);
    s.kl = 0.01 * draw(random), s.dp = std::exp(-s.nll) - std::exp(-s.nll_reference),
    s.same_top = i % 10 != 0;
    nll += s.nll, reference += s.nll_reference, kl += s.kl, squares += s.dp * s.dp, same += s.same_top;
    largest = std::max(largest, s.kl);
    scores.push_back(s);
  }
  const EvalSummary all = summarise(scores, true);
  CHECK(all.n == 500);
  CHECK(all.perplexity.value == doctest::Approx(std::exp(nll / 500)));
  CHECK(all.perplexity_reference.value == doctest::Approx(std::exp(reference / 500)));
  CHECK(all.perplexity_ratio.value == doctest::Approx(all.perplexity.value / all.perplexity_reference.value));
  // Token by token both sides go together: the ratio is known better than either.
  CHECK(all.perplexity_ratio.error < 0.2 * all.perplexity.error);
  CHECK(all.nll_correlation > 0.99);
  CHECK(all.kl_mean.value == doctest::Approx(kl / 500));
  CHECK(all.kl_max.value == largest);
  CHECK(all.kl_median.value < all.kl_90.value);
  CHECK(all.kl_90.value < all.kl_95.value);
  CHECK(all.kl_95.value < all.kl_99.value);
  CHECK(all.dp_rms.value == doctest::Approx(std::sqrt(squares / 500)));
  CHECK(all.same_top.value == doctest::Approx(same / 500));
  CHECK(summarise(scores, false).perplexity.value == all.perplexity.value);
}
