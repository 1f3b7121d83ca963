#include "core/eval/summary.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace apr {
namespace {

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

double correlation(std::span<const double> a, std::span<const double> b) {
  const double mean_a = mean_of(a).value, mean_b = mean_of(b).value;
  double aa = 0, bb = 0, ab = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double x = a[i] - mean_a, y = b[i] - mean_b;
    aa += x * x, bb += y * y, ab += x * y;
  }
  return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : kUnknown;
}

}  // namespace

Estimate mean_of(std::span<const double> values) {
  const auto n = static_cast<double>(values.size());
  double sum = 0;
  for (const double v : values) sum += v;
  const double mean = sum / n;
  double squares = 0;
  for (const double v : values) squares += (v - mean) * (v - mean);
  return {mean, values.size() < 2 ? kUnknown : std::sqrt(squares / (n - 1) / n)};
}

Estimate exp_mean_of(std::span<const double> values) {
  const Estimate mean = mean_of(values);
  return {std::exp(mean.value), std::exp(mean.value) * mean.error};
}

Estimate rms_of(std::span<const double> values) {
  std::vector<double> squares(values.size());
  for (size_t i = 0; i < values.size(); ++i) squares[i] = values[i] * values[i];
  const Estimate mean = mean_of(squares);
  const double rms = std::sqrt(mean.value);
  return {rms, rms > 0 ? mean.error / (2 * rms) : mean.error};
}

Estimate share_of(std::span<const double> values) {
  const double p = mean_of(values).value;
  const auto n = static_cast<double>(values.size());
  return {p, values.size() < 2 ? kUnknown : std::sqrt(p * (1 - p) / (n - 1))};
}

Estimate quantile_of(std::span<const double> sorted, double q) {
  const auto at = [&](double place) {
    const double last = static_cast<double>(sorted.size() - 1);
    place = std::clamp(place, 0.0, last);
    const auto low = static_cast<size_t>(place);
    const size_t high = std::min(low + 1, sorted.size() - 1);
    return sorted[low] + (place - static_cast<double>(low)) * (sorted[high] - sorted[low]);
  };
  const auto n = static_cast<double>(sorted.size());
  const double place = q * (n - 1), reach = std::sqrt(n * q * (1 - q));
  // Where the places to either side are no places, nothing is known.
  const bool known = place - reach >= 0 && place + reach <= n - 1 && reach > 0;
  return {at(place), known ? (at(place + reach) - at(place - reach)) / 2 : kUnknown};
}

EvalSummary summarise(std::span<const TokenScore> scores, bool has_reference) {
  const auto column = [&](double TokenScore::*field) {
    std::vector<double> values(scores.size());
    for (size_t i = 0; i < scores.size(); ++i) values[i] = scores[i].*field;
    return values;
  };
  EvalSummary out;
  out.n = scores.size();
  out.has_reference = has_reference;
  const std::vector<double> nll = column(&TokenScore::nll);
  out.nll = mean_of(nll);
  out.perplexity = exp_mean_of(nll);
  if (!has_reference) return out;

  const std::vector<double> reference = column(&TokenScore::nll_reference);
  std::vector<double> difference(nll.size());
  for (size_t i = 0; i < nll.size(); ++i) difference[i] = nll[i] - reference[i];
  out.perplexity_reference = exp_mean_of(reference);
  out.perplexity_ratio = exp_mean_of(difference);
  out.log_ratio = mean_of(difference);
  out.nll_correlation = correlation(nll, reference);

  std::vector<double> kl = column(&TokenScore::kl);
  out.kl_mean = mean_of(kl);
  std::sort(kl.begin(), kl.end());
  out.kl_median = quantile_of(kl, 0.5);
  out.kl_90 = quantile_of(kl, 0.9);
  out.kl_95 = quantile_of(kl, 0.95);
  out.kl_99 = quantile_of(kl, 0.99);
  out.kl_max = {kl.back(), kUnknown};

  const std::vector<double> dp = column(&TokenScore::dp);
  out.dp_mean = mean_of(dp);
  out.dp_rms = rms_of(dp);
  out.same_top = share_of(column(&TokenScore::same_top));
  return out;
}

}  // namespace apr
