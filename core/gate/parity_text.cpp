// The parity report for people, in 80 columns.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "core/base/wrap.h"
#include "core/gate/parity.h"
#include "core/gate/stage_check.h"

namespace apr {

namespace {

// Of one position over all forms.
struct Worst {
  double cosine = 1, nmse = 0, kl = 0, difference = 0;
  int32_t reference_argmax = 0, device_argmax = 0;
  std::string failing;
  int failed = 0, forms = 0;
};

constexpr size_t kFailsIn = 61;  // where the last column begins

std::string position_table(const ParityReport& report) {
  std::map<uint32_t, Worst> positions;
  for (const ParityPosition& p : report.positions) {
    Worst& w = positions[p.position];
    w.cosine = std::min(w.cosine, p.cosine);
    if (!(p.nmse <= w.nmse)) w.nmse = p.nmse;
    if (!(p.kl <= w.kl)) w.kl = p.kl;
    if (!(p.max_difference <= w.difference)) w.difference = p.max_difference;
    w.reference_argmax = p.reference_argmax;
    if (w.failing.empty() &&
        (p.form == ParityForm::Prefill || p.device_argmax != p.reference_argmax || !p.pass))
      w.device_argmax = p.device_argmax;
    ++w.forms;
    if (!p.pass) ++w.failed;
    if (!p.pass) w.failing += std::string(w.failing.empty() ? "" : " ") + to_string(p.form);
  }
  std::string text = fmt::format("{:>3} {:>9} {:>8} {:>8} {:>9} {:>8} {:>8}  {}\n", "pos", "cosine", "nmse",
                                 "KL", "max diff", "argmax", "device", "fails in");
  for (const auto& [position, w] : positions)
    text += wrapped(fmt::format("{:>3} {:>9.6f} {:>8.1e} {:>8.1e} {:>9.4f} {:>8} {:>8}  {}", position,
                                w.cosine, w.nmse, w.kl, w.difference, w.reference_argmax, w.device_argmax,
                                w.failed == w.forms ? "every form" : w.failing),
                    0, kFailsIn);
  return text;
}

std::string form_table(const ParityReport& report) {
  std::string text = fmt::format("{:<8} {:>9} {:>8} {:>8} {:>10} {:>10} {:>9} {:>9}\n", "form", "cosine",
                                 "nmse", "KL", "mean", "device", "deviation", "device");
  for (const ParityForm form : {ParityForm::Prefill, ParityForm::Few, ParityForm::SingleEager,
                                ParityForm::SingleGraph, ParityForm::Mixed}) {
    const ParityPosition* worst = nullptr;
    for (const ParityPosition& p : report.positions)
      if (p.form == form && (worst == nullptr || !(p.nmse <= worst->nmse))) worst = &p;
    if (worst == nullptr) continue;
    text += fmt::format("{:<8} {:>9.6f} {:>8.1e} {:>8.1e} {:>10.4f} {:>10.4f} {:>9.4f} {:>9.4f}\n",
                        to_string(form), worst->cosine, worst->nmse, worst->kl, worst->reference_mean,
                        worst->device_mean, worst->reference_deviation, worst->device_deviation);
  }
  return text;
}

}  // namespace

std::string describe(const ParityReport& report) {
  std::string text = wrapped(fmt::format("parity: {}: {}", to_string(report.verdict), report.reason), 0, 2);
  if (report.positions.empty()) return text;
  text += "\nevery position, the worst of all forms\n" + position_table(report);
  text += "\nevery form, at its worst position\n" + form_table(report);
  text += "\nlargest differences (device - reference)\n";
  for (const ParityDifference& d : report.differences)
    text +=
        fmt::format("  {:<8} position {:>3} token {:>7}: {:>10.4f} - {:>10.4f} = {:>+10.4f}\n",
                    to_string(d.form), d.position, d.token, d.device, d.reference, d.device - d.reference);
  return text;
}

}  // namespace apr
