#include "aprctl/eval_report.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/base/format.h"
#include "core/base/wrap.h"

namespace apr::ctl {
namespace {

using nlohmann::ordered_json;

void print_line(const char* name, const Estimate& figure, double factor, int digits, const char* unit) {
  // Divergences are small and of every size: those are shown with powers of ten.
  const auto text = [&](double x) {
    return digits < 0 ? fmt::format("{:.3e}", factor * x) : fmt::format("{:.{}f}", factor * x, digits);
  };
  fmt::print("{:<24} {:>14} {:>12}{}{}\n", name, text(figure.value),
             std::isnan(figure.error) ? std::string("-") : text(figure.error), *unit == 0 ? "" : "  ", unit);
}
constexpr int kPowersOfTen = -1;

ordered_json json_of(const Estimate& figure) {
  const auto finite = [](double x) { return std::isfinite(x) ? ordered_json(x) : ordered_json(nullptr); };
  return {{"value", finite(figure.value)}, {"error", finite(figure.error)}};
}

double tokens_per_second(const EvalResult& result) {
  const uint64_t windows = result.windows.count - result.resumed_at;
  return result.seconds > 0 ? static_cast<double>(windows * (result.windows.ctx - 1)) / result.seconds : 0;
}

}  // namespace

std::string with_error(const Estimate& estimate) {
  if (!(estimate.error > 0) || !std::isfinite(estimate.error)) return fmt::format("{:.5g}", estimate.value);
  if (estimate.value > 0 && estimate.value < 1e-3) {
    const int power = static_cast<int>(std::floor(std::log10(estimate.value)));
    const double unit = std::pow(10, power);
    return fmt::format("{}e{}", with_error({estimate.value / unit, estimate.error / unit}), power);
  }
  // Two digits of the error where one would be coarse (1 or 2), else one.
  int digits = -static_cast<int>(std::floor(std::log10(estimate.error)));
  if (estimate.error * std::pow(10, digits) < 2.95) ++digits;
  digits = std::max(digits, 0);
  const double last = std::round(estimate.error * std::pow(10, digits));
  return fmt::format("{:.{}f}({:.0f})", estimate.value, digits, last);
}

void print_eval(const EvalRequest& request, const EvalResult& result, const EvalSummary& s) {
  const Windows& w = result.windows;
  fmt::print("{}, {}, {:.3f} bits per weight\n{}", result.title, human_bytes(result.weight_bytes),
             bits_per_weight(result.weight_bytes, result.parameters), wrapped(result.resolved, 0, 2));
  fmt::print("{}: {} tokens\n{} windows of {}, stride {}; {} predictions count\n", request.text_name,
             w.tokens.size(), w.count, w.ctx, w.stride, s.n);
  if (s.has_reference) fmt::print("reference: {}\n", result.reference);
  fmt::print("\n{:<24} {:>14} {:>12}\n", "", "figure", "std. error");
  print_line("perplexity", s.perplexity, 1, 4, "");
  print_line("cross entropy", s.nll, 1, 5, "nats per token");
  if (s.has_reference) {
    print_line("reference's perplexity", s.perplexity_reference, 1, 4, "");
    print_line("perplexity ratio", s.perplexity_ratio, 1, 5, "");
    print_line("ln of it", s.log_ratio, 1, 5, "");
    if (!std::isnan(s.nll_correlation))
      fmt::print("{:<24} {:>14.3f}\n", "correlation of nll", 100 * s.nll_correlation);
    print_line("KL divergence, mean", s.kl_mean, 1, kPowersOfTen, "nats");
    print_line("  median", s.kl_median, 1, kPowersOfTen, "nats");
    print_line("  90%", s.kl_90, 1, kPowersOfTen, "nats");
    print_line("  95%", s.kl_95, 1, kPowersOfTen, "nats");
    print_line("  99%", s.kl_99, 1, kPowersOfTen, "nats");
    print_line("  maximum", s.kl_max, 1, kPowersOfTen, "nats");
    print_line("same most likely token", s.same_top, 100, 3, "%");
    print_line("dp, mean", s.dp_mean, 100, 3, "% (p of the true token)");
    print_line("dp, RMS", s.dp_rms, 100, 3, "%");
  }
  if (result.resumed_at < w.count)
    fmt::print("\n{} windows in {:.1f} s: {:.1f} tok/s{}\n", w.count - result.resumed_at, result.seconds,
               tokens_per_second(result), s.has_reference ? ", the reference's time included" : "");
  if (result.resumed_at > 0) fmt::print("{} windows were computed by an earlier run\n", result.resumed_at);
}

ordered_json eval_json(const EvalRequest& request, const EvalResult& result, const EvalSummary& s) {
  const Windows& w = result.windows;
  ordered_json out = result.report;
  out["bits_per_weight"] = bits_per_weight(result.weight_bytes, result.parameters);
  out["text"] = {{"file", printable(request.text_name, kLongPath)},
                 {"bytes", request.text.size()},
                 {"tokens", w.tokens.size()}};
  out["windows"] = {{"ctx", w.ctx},
                    {"stride", w.stride},
                    {"skip", w.skip},
                    {"count", w.count},
                    {"resumed_at", result.resumed_at},
                    {"bos", w.bos ? ordered_json(*w.bos) : ordered_json(nullptr)}};
  out["predictions"] = s.n;
  out["nll"] = json_of(s.nll);
  out["perplexity"] = json_of(s.perplexity);
  if (s.has_reference) {
    out["reference"] = {{"name", printable(result.reference, kLongPath)},
                        {"perplexity", json_of(s.perplexity_reference)}};
    out["perplexity_ratio"] = json_of(s.perplexity_ratio);
    out["log_perplexity_ratio"] = json_of(s.log_ratio);
    out["nll_correlation"] =
        std::isnan(s.nll_correlation) ? ordered_json(nullptr) : ordered_json(s.nll_correlation);
    out["kl_divergence"] = {{"mean", json_of(s.kl_mean)}, {"median", json_of(s.kl_median)},
                            {"p90", json_of(s.kl_90)},    {"p95", json_of(s.kl_95)},
                            {"p99", json_of(s.kl_99)},    {"max", json_of(s.kl_max)}};
    out["top1_agreement"] = json_of(s.same_top);
    out["dp_mean"] = json_of(s.dp_mean);
    out["dp_rms"] = json_of(s.dp_rms);
  }
  out["seconds"] = result.seconds;
  out["tokens_per_second"] = tokens_per_second(result);
  return out;
}

}  // namespace apr::ctl
