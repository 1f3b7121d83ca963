#include "aprctl/parity_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/base/format.h"
#include "core/base/wrap.h"

namespace apr::ctl {
namespace {

using nlohmann::ordered_json;

ordered_json finite(double value) {
  return std::isfinite(value) ? ordered_json(value) : ordered_json(nullptr);
}

ordered_json stage_json(const StageVerdict& v) {
  return {{"stage", v.stage},
          {"form", to_string(v.form)},
          {"pass", v.pass},
          {"group", v.group},
          {"weight", v.weight},
          {"format", v.format},
          {"positions", v.rows},
          {"error", finite(v.error)},
          {"bound", finite(v.bound)},
          {"worst_deviations", finite(v.worst_deviations)},
          {"worst_position", v.worst_position},
          {"worst_column", v.worst_column},
          {"worst_expected", finite(v.worst_expected)},
          {"worst_got", finite(v.worst_got)},
          {"factor", finite(v.factor)},
          {"factor_bound", finite(v.factor_bound)},
          {"looks_like", v.looks_like}};
}

ordered_json stages_json(const std::vector<StageVerdict>& stages) {
  ordered_json out = ordered_json::array();
  for (const StageVerdict& v : stages) out.push_back(stage_json(v));
  return out;
}

const char* name(BisectResult result) {
  switch (result) {
    case BisectResult::Nothing:
      return "nothing";
    case BisectResult::Stage:
      return "stage";
    case BisectResult::Group:
      return "fused group";
    case BisectResult::Separate:
      return "unfused only";
  }
  return "?";
}

ordered_json bisection_json(const SideBisection& b) {
  ordered_json out = {{"side", b.side}, {"result", name(b.finding.result)}, {"text", b.finding.text}};
  if (b.finding.result != BisectResult::Nothing) {
    out["stage"] = b.finding.verdict.stage;
    out["verdict"] = stage_json(b.finding.verdict);
    out["forms"] = b.finding.forms;
    out["also"] = b.finding.also;
    out["kernel"] = b.kernel;
    out["try_next"] = b.try_next;
  }
  out["passes"] = ordered_json::array();
  for (const BisectPass& pass : b.passes)
    out["passes"].push_back({{"what", pass.what}, {"stages", stages_json(pass.stages)}});
  return out;
}

}  // namespace

ordered_json parity_json(const Engine& engine, const ParityReport& report,
                         const std::vector<SideBisection>& bisections) {
  ordered_json out = engine.report();
  out["verdict"] = to_string(report.verdict);
  out["fault"] = to_string(report.fault);
  out["reason"] = report.reason;
  out["tolerance"] = report.tolerance;
  out["worst_nmse"] = finite(report.worst_nmse);
  out["worst_cosine"] = finite(report.worst_cosine);
  out["seconds"] = report.seconds;
  out["positions"] = ordered_json::array();
  for (const ParityPosition& p : report.positions) {
    out["positions"].push_back({{"form", to_string(p.form)},
                                {"position", p.position},
                                {"pass", p.pass},
                                {"nmse", finite(p.nmse)},
                                {"cosine", finite(p.cosine)},
                                {"kl", finite(p.kl)},
                                {"max_difference", finite(p.max_difference)},
                                {"reference_argmax", p.reference_argmax},
                                {"device_argmax", p.device_argmax},
                                {"argmax_gap", p.argmax_gap},
                                {"reference_mean", p.reference_mean},
                                {"reference_deviation", p.reference_deviation},
                                {"device_mean", finite(p.device_mean)},
                                {"device_deviation", finite(p.device_deviation)}});
  }
  out["differences"] = ordered_json::array();
  for (const ParityDifference& d : report.differences)
    out["differences"].push_back({{"form", to_string(d.form)},
                                  {"position", d.position},
                                  {"token", d.token},
                                  {"reference", d.reference},
                                  {"device", finite(d.device)}});
  out["stages"] = stages_json(report.stages);
  if (!bisections.empty()) out["bisect"] = ordered_json::array();
  for (const SideBisection& b : bisections) out["bisect"].push_back(bisection_json(b));
  return out;
}

std::string describe(const SideBisection& b) {
  std::string text = wrapped(fmt::format("bisect {}: {}", b.side, b.finding.text), 0, 2);
  if (b.finding.result == BisectResult::Nothing) {
    for (const BisectPass& pass : b.passes)
      text += fmt::format("  {}: {} stages judged\n", pass.what, pass.stages.size());
    return text;
  }
  const StageVerdict& v = b.finding.verdict;
  text += fmt::format("  stage   {}\n", v.stage);
  if (v.group.size() > 1) text += wrapped(fmt::format("  group   {}", joined(v.group, " ")), 0, 10);
  if (!v.weight.empty()) text += fmt::format("  weight  {} ({})\n", v.weight, v.format);
  if (!b.kernel.empty()) text += wrapped(fmt::format("  kernel  {}", b.kernel), 0, 10);
  text += fmt::format("  error   {:.2g} of its size, {:.2g} is rounding, over {} positions\n", v.error,
                      v.bound, v.rows);
  text += fmt::format("  worst   position {} column {}: {:.6g} where {:.6g} is right\n", v.worst_position,
                      v.worst_column, v.worst_got, v.worst_expected);
  if (v.factor_bound > 0)
    text += fmt::format("  factor  {:.6g}, off by {:.1e} at most\n", v.factor, v.factor_bound);
  text += wrapped(fmt::format("  looks   {}", v.looks_like), 0, 10);
  if (!b.finding.also.empty()) {
    const std::vector<std::string> some(
        b.finding.also.begin(),
        b.finding.also.begin() + static_cast<std::ptrdiff_t>(std::min<size_t>(2, b.finding.also.size())));
    text += fmt::format("  also    {} later stages by themselves: {}{}\n", b.finding.also.size(),
                        joined(some), b.finding.also.size() > some.size() ? ", ..." : "");
  }
  for (size_t i = 0; i < b.try_next.size(); ++i)
    text += fmt::format("  {}  {}\n", i == 0 ? "try   " : "or    ", b.try_next[i]);
  return text;
}

std::string kernel_of(Session& session, const StageVerdict& verdict) {
  std::vector<std::string> own, of_group;
  for (const apr_kernel_info& k : session.kernels()) {
    const std::string text =
        fmt::format("{}{}{} ({})", k.kernel, k.format[0] != '\0' ? " on " : "", k.format, k.config);
    const bool is_own = k.stage == verdict.stage || (k.weight[0] != '\0' && verdict.weight == k.weight);
    if (is_own)
      own.push_back(text);
    else if (std::find(verdict.group.begin(), verdict.group.end(), k.stage) != verdict.group.end())
      of_group.push_back(text);
  }
  // A stage has one kernel for a token and another for prompts; the forms in which it fails tell which ran.
  return joined(own.empty() ? of_group : own, "; ");
}

std::vector<std::string> next_probes(const SideBisection& b, const apr_plan& plan, Session& session,
                                     const std::vector<KernelTemplate>& templates,
                                     const std::string& bisect_command, const std::string& run_command) {
  std::vector<std::string> lines;
  const StageVerdict& v = b.finding.verdict;
  if (b.finding.result == BisectResult::Nothing) return lines;
  const auto once = [&](const std::string& line) {
    if (std::find(lines.begin(), lines.end(), line) == lines.end()) lines.push_back(line);
  };
  if (b.finding.result == BisectResult::Group) once("APR_NO_FUSION=1 " + bisect_command);
  const bool batch_only = b.finding.forms == std::vector<std::string>{to_string(ParityForm::Prefill)},
             token_only = b.finding.forms == std::vector<std::string>{to_string(ParityForm::Mixed)};
  bool lower_isa = false;
  for (const std::string& stage : v.group)
    for (uint32_t i = 0; i < plan.n_ops; ++i) {
      const apr_op& op = *plan.ops[i];
      if (op.stage != stage) continue;
      const apr_weight* w = op.weight[0] < 0 ? nullptr : plan.weights[op.weight[0]];
      if (w != nullptr) {
        // The same layer in another format: right then, and the format's own kernels are at fault.
        const std::string other = std::strcmp(w->format->name, "f32") == 0 ? "f16" : "f32";
        once(op.kind == APR_OP_LINEAR && stage == "logits"
                 ? fmt::format("APR_LM_HEAD_FORCE_QTYPE={} {}", other, bisect_command)
                 : fmt::format("APR_FORCE_QTYPE='{}={}' {}", w->name, other, bisect_command));
      }
      for (const apr_kernel_info& k : session.kernels()) {
        const bool token = k.m_min <= 1;
        if (k.stage != stage || (batch_only && token) || (token_only && !token)) continue;
        const std::string config = k.config;
        lower_isa = lower_isa || (config.find("isa=") != std::string::npos &&
                                  config.find("isa=portable") == std::string::npos);
        // The same format through another kernel.
        for (const KernelTemplate& t : templates)
          if (w != nullptr && may_serve(t, k, *w->format))
            once(fmt::format("APR_FORCE_KERNEL='{}={}' {}", w->name, t.name, bisect_command));
      }
    }
  if (lower_isa) once("APR_CPU_ISA=portable " + bisect_command);
  // Nothing can take the stage's place: its numbers beside those of the reference.
  once(fmt::format("APR_SKIP_PARITY_GATE=1 APR_STAGE_DUMP=faulty {} --backend {}", run_command,
                   b.side.substr(0, b.side.find(':'))));
  once(fmt::format("APR_STAGE_DUMP=right {} --precise; aprctl diff right faulty", run_command));
  return lines;
}

}  // namespace apr::ctl
