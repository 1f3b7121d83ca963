#include "core/gate/parity.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/gate/feeder.h"
#include "core/gate/stage_check.h"

namespace apr {

const char* to_string(ParityVerdict verdict) {
  switch (verdict) {
    case ParityVerdict::Pass:
      return "pass";
    case ParityVerdict::Fail:
      return "fail";
    case ParityVerdict::NotRun:
      return "not-run";
  }
  return "?";
}

const char* to_string(ParityForm form) {
  switch (form) {
    case ParityForm::Prefill:
      return "prefill";
    case ParityForm::Few:
      return "few";
    case ParityForm::SingleEager:
      return "single";
    case ParityForm::SingleGraph:
      return "graph";
    case ParityForm::Mixed:
      return "mixed";
  }
  return "?";
}

const char* to_string(ParityFault fault) {
  switch (fault) {
    case ParityFault::None:
      return "none";
    case ParityFault::NotFinite:
      return "not finite";
    case ParityFault::Transposed:
      return "transposed or wrong layout";
    case ParityFault::Sign:
      return "sign";
    case ParityFault::Scale:
      return "scale";
    case ParityFault::Position:
      return "position (rope, KV cache or attention)";
    case ParityFault::Graph:
      return "graph";
    case ParityFault::Batch:
      return "batch";
    case ParityFault::State:
      return "state left by other tokens";
    case ParityFault::Stage:
      return "stage";
    case ParityFault::Precision:
      return "precision";
  }
  return "?";
}

// An 8-bit block of 32 columns has a step of amax / 127, so a rounding error of step / sqrt(12). With amax near 3 standard
// deviations that is 3 / 127 / sqrt(12) = 0.7% of the row's magnitude, 4.7e-5 as a square: the noise that each rounded
// input adds. Every input of a linear is rounded once, and noises of different inputs add as squares: on a golden model
// of 2 layers (9 rounded inputs) that predicts 4.2e-4, where 1e-4 to 3.4e-4 is measured against float64. Two 8-bit sides
// that round at slightly different values differ by the noise of both. A factor of 4 covers layers that amplify what
// reaches them (norms over small residuals); a fault gives 0.1 and more, so nothing hides below the bound.
// A float side has f16 rounding in its KV cache and tensor-core inputs: 2^-11 / sqrt(3), 1e-7 as a square.
double parity_tolerance(const apr_plan& plan, bool reference_precise, bool device_precise) {
  std::set<int32_t> inputs;
  for (uint32_t i = 0; i < plan.n_ops; ++i)
    if (plan.ops[i]->kind == APR_OP_LINEAR) inputs.insert(plan.ops[i]->in[0]);
  const double rounded = static_cast<double>(std::max<size_t>(inputs.size(), 1));
  constexpr double kInt8 = 4.7e-5, kFloat = 1e-7, kMargin = 4.0;
  const double reference = reference_precise ? kFloat : kInt8, device = device_precise ? kFloat : kInt8;
  // Beyond 2% a picked token differs often: no depth excuses more.
  return std::min(0.02, kMargin * rounded * (reference + device));
}

double logits_nmse(const float* a, const float* b, uint32_t n) {
  double mean = 0, error = 0, spread = 0;
  for (uint32_t i = 0; i < n; ++i) mean += a[i];
  mean /= n;
  for (uint32_t i = 0; i < n; ++i) {
    error += (double{b[i]} - a[i]) * (double{b[i]} - a[i]);
    spread += (a[i] - mean) * (a[i] - mean);
  }
  return error / std::max(spread, 1e-30);
}

namespace {

struct Moments {
  double mean = 0, deviation = 0;
  int32_t argmax = -1;  // -1: a NaN
};

Moments moments(const float* row, uint32_t n) {
  Moments m;
  double sum = 0, square = 0;
  float best = -INFINITY;
  bool nan = false;
  for (uint32_t i = 0; i < n; ++i) {
    sum += row[i];
    nan |= std::isnan(row[i]);
    if (row[i] > best) best = row[i], m.argmax = static_cast<int32_t>(i);
  }
  m.mean = sum / n;
  for (uint32_t i = 0; i < n; ++i) square += (row[i] - m.mean) * (row[i] - m.mean);
  m.deviation = std::sqrt(square / n);
  if (nan) m.argmax = -1;
  return m;
}

// Of the softmax of `device` from that of `reference`.
double divergence(const float* reference, const float* device, uint32_t n) {
  const auto log_sum = [n](const float* row) {
    const double most = *std::max_element(row, row + n);
    double sum = 0;
    for (uint32_t i = 0; i < n; ++i) sum += std::exp(row[i] - most);
    return most + std::log(sum);
  };
  const double zr = log_sum(reference), zd = log_sum(device);
  double kl = 0;
  for (uint32_t i = 0; i < n; ++i)
    kl += std::exp(reference[i] - zr) * ((reference[i] - zr) - (device[i] - zd));
  return std::max(0.0, kl);  // next to nothing may come out below 0
}

ParityPosition compare(ParityForm form, uint32_t position, const float* reference, const float* device,
                       uint32_t n, double tolerance) {
  const Moments r = moments(reference, n), d = moments(device, n);
  double error = 0, dot = 0, rr = 0, dd = 0, most = 0;
  for (uint32_t i = 0; i < n; ++i) {
    const double a = reference[i], b = device[i];
    error += (a - b) * (a - b);
    dot += a * b, rr += a * a, dd += b * b;
    most = std::max(most, std::fabs(a - b));
  }
  ParityPosition p{};
  p.form = form;
  p.position = position;
  // Against the spread, not the size: logits with a large common offset would hide differences that change the tokens.
  p.nmse = error / std::max(r.deviation * r.deviation * n, 1e-30);
  p.cosine = dot / std::max(std::sqrt(rr * dd), 1e-30);
  p.kl = divergence(reference, device, n);
  p.max_difference = most;
  p.reference_argmax = r.argmax, p.device_argmax = d.argmax;
  p.argmax_gap =
      r.argmax >= 0 && d.argmax >= 0 ? static_cast<double>(reference[r.argmax]) - reference[d.argmax] : 0;
  p.reference_mean = r.mean, p.reference_deviation = r.deviation;
  p.device_mean = d.mean, p.device_deviation = d.deviation;
  // Another token may win only where the two were closer than the noise allows: 6 of its standard deviations, as the
  // difference of two logits.
  const double noise = std::sqrt(tolerance) * r.deviation;
  p.pass = std::isfinite(p.nmse) && p.nmse <= tolerance && d.argmax >= 0 &&
           p.argmax_gap <= 6.0 * std::sqrt(2.0) * noise;
  return p;
}

const ParityPosition* first_of(const ParityReport& report, ParityForm form) {
  for (const ParityPosition& p : report.positions)
    if (p.form == form) return &p;
  return nullptr;
}

bool all_pass(const ParityReport& report, ParityForm form) {
  return std::all_of(report.positions.begin(), report.positions.end(),
                     [&](const ParityPosition& p) { return p.form != form || p.pass; });
}

struct Bits {
  bool graph_differs = false;   // SingleGraph from SingleEager
  bool repeat_differs = false;  // Prefill, when it is run again after everything else
};

ParityFault classify(const ParityReport& report, const Bits& bits) {
  const bool prefill = all_pass(report, ParityForm::Prefill), few = all_pass(report, ParityForm::Few);
  const bool eager = all_pass(report, ParityForm::SingleEager),
             graph = all_pass(report, ParityForm::SingleGraph);
  const bool mixed = all_pass(report, ParityForm::Mixed);
  if (prefill && few && eager && graph && mixed) {
    return bits.graph_differs    ? ParityFault::Graph
           : bits.repeat_differs ? ParityFault::State
                                 : ParityFault::None;
  }
  double cosine = 0, ratio = 0;
  size_t failing = 0, zero_fails = 0, later_fails = 0;
  for (const ParityPosition& p : report.positions) {
    if (!std::isfinite(p.device_mean)) return ParityFault::NotFinite;
    if (p.pass) continue;
    ++failing;
    ++(p.position == 0 ? zero_fails : later_fails);
    cosine += p.cosine;
    ratio += p.device_deviation / std::max(p.reference_deviation, 1e-30);
  }
  if (prefill && few && eager && !graph) return ParityFault::Graph;
  // Right alone and wrong together: what one form leaves in the cache is not what the other expects.
  if (prefill && few && eager && graph) return ParityFault::Position;
  if ((!prefill || !few) && eager && graph) return ParityFault::Batch;
  cosine /= static_cast<double>(failing), ratio /= static_cast<double>(failing);
  if (cosine < -0.9) return ParityFault::Sign;
  if (zero_fails == 0 && later_fails > 0) return ParityFault::Position;
  if (cosine > 0.98 && (ratio > 1.05 || ratio < 0.95)) return ParityFault::Scale;
  if (const ParityPosition* first = first_of(report, ParityForm::SingleEager);
      first != nullptr && std::fabs(first->cosine) < 0.5)
    return ParityFault::Transposed;
  return ParityFault::Precision;
}

void collect_differences(ParityReport& report, ParityForm form, const std::vector<float>& reference,
                         const std::vector<float>& device, uint32_t n_vocab) {
  constexpr size_t kKept = 10;
  // A NaN is larger than any number here, or it would be lost in the comparison.
  const auto size = [](const ParityDifference& d) {
    const double v = std::fabs(static_cast<double>(d.device) - d.reference);
    return std::isnan(v) ? static_cast<double>(INFINITY) : v;
  };
  for (size_t i = 0; i < device.size(); ++i) {
    const ParityDifference d = {form, static_cast<uint32_t>(i / n_vocab), static_cast<int32_t>(i % n_vocab),
                                reference[i], device[i]};
    std::vector<ParityDifference>& kept = report.differences;
    if (kept.size() == kKept && size(d) <= size(kept.back())) continue;
    kept.insert(std::upper_bound(kept.begin(), kept.end(), d,
                                 [&](const auto& a, const auto& b) { return size(a) > size(b); }),
                d);
    if (kept.size() > kKept) kept.pop_back();
  }
}

}  // namespace

ParityReport run_parity(const ParityRequest& request) {
  const auto start = Clock::now();
  if (request.tokens.size() < 2)
    throw Error("the parity gate needs a prompt of at least 2 tokens, not {}", request.tokens.size());
  const uint32_t n_vocab = request.plan->n_vocab;
  ParityReport report;
  report.tolerance = parity_tolerance(*request.plan, request.reference_precise, request.device_precise);
  std::vector<float> reference;
  try {
    reference = Feeder(request.reference, *request.plan, request.tokens).run(ParityForm::Prefill);
  } catch (const Error& e) {
    report.reason = fmt::format("the reference could not be computed: {}", e.what());
    return report;
  }
  if (std::any_of(reference.begin(), reference.end(), [](float v) { return !std::isfinite(v); })) {
    report.reason =
        "the reference itself has NaN or infinity: the model's weights or its backend are at fault";
    return report;
  }

  Bits bits;
  std::vector<float> first, eager;
  Feeder device_side(request.device, *request.plan, request.tokens);
  const auto same_bits = [](const std::vector<float>& a, const std::vector<float>& b) {
    return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
  };
  const char* running = "prefill";
  try {
    for (const ParityForm form : {ParityForm::Prefill, ParityForm::Few, ParityForm::SingleEager,
                                  ParityForm::SingleGraph, ParityForm::Mixed}) {
      running = to_string(form);
      device_side.scramble();
      std::vector<float> device = device_side.run(form);
      for (uint32_t i = 0; i < request.tokens.size(); ++i)
        report.positions.push_back(compare(form, i, reference.data() + size_t{i} * n_vocab,
                                           device.data() + size_t{i} * n_vocab, n_vocab, report.tolerance));
      collect_differences(report, form, reference, device, n_vocab);
      switch (form) {
        case ParityForm::Prefill:
          first = std::move(device);
          break;
        case ParityForm::SingleEager:
          eager = std::move(device);
          break;
        // The same kernels on the same data: any difference is a fault of the capture, however small.
        case ParityForm::SingleGraph:
          bits.graph_differs = !same_bits(eager, device);
          break;
        case ParityForm::Few:
        case ParityForm::Mixed:
          break;
      }
    }
    running = "repeated prefill";
    device_side.scramble();
    bits.repeat_differs = !same_bits(first, device_side.run(ParityForm::Prefill));
  } catch (const Error& e) {
    report.verdict = ParityVerdict::Fail;
    report.reason = fmt::format("{} form: {}", running, e.what());
    return report;
  }
  const ParityPosition* worst = &report.positions[0];
  for (const ParityPosition& p : report.positions) {
    report.worst_cosine = std::min(report.worst_cosine, p.cosine);
    if (!(p.nmse <= worst->nmse)) worst = &p;
  }
  report.worst_nmse = worst->nmse;
  report.fault = classify(report, bits);
  report.verdict = report.fault == ParityFault::None ? ParityVerdict::Pass : ParityVerdict::Fail;
  const std::string place =
      fmt::format("worst at {} position {}: nmse {:.1e} (bound {:.1e}), cosine {:.6f}",
                  to_string(worst->form), worst->position, worst->nmse, report.tolerance, worst->cosine);
  if (report.verdict == ParityVerdict::Pass)
    report.reason = place;
  else if (bits.graph_differs && report.fault == ParityFault::Graph)
    report.reason = "the captured graph gives other bits than its kernels launched one by one; " + place;
  else if (report.fault == ParityFault::State)
    report.reason =
        "the same prompt gives other bits after other tokens have been at its positions: something is read "
        "that was not written";
  else
    report.reason = fmt::format("looks like: {}; {}", to_string(report.fault), place);
  report.seconds = seconds_since(start);
  return report;
}

void judge_stages(ParityReport& report, std::vector<StageVerdict> stages) {
  report.stages.insert(report.stages.end(), stages.begin(), stages.end());
  const StageVerdict* failed = first_failure(report.stages);
  if (failed == nullptr || report.verdict == ParityVerdict::NotRun) return;
  if (report.verdict == ParityVerdict::Pass) {
    report.fault = ParityFault::Stage;
    report.reason = describe(*failed);
  } else if (report.reason.find("; first faulty stage: ") == std::string::npos) {
    report.reason += "; first faulty stage: " + failed->stage;
  }
  report.verdict = ParityVerdict::Fail;
}

}  // namespace apr
