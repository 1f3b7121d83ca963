// Gates that compare two computations: the backend with its reference, and a file with another of the same weights.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/base/log.h"
#include "core/base/thread_pool.h"
#include "core/compare/packing.h"
#include "core/compare/verdict.h"
#include "core/hf/open_model.h"
#include "core/qa/gates.h"

namespace apr {

QaResult gate_parity(QaSubject& subject) {
  (void)subject.backend();
  const ParityReport report = subject.request().parity();
  QaResult result{QaVerdict::Pass, "worst nmse", report.worst_nmse, report.tolerance, report.reason, {}};
  result.details.push_back(fmt::format("against {}: {} positions, {} stages judged by their own inputs",
                                       subject.request().reference, report.positions.size(),
                                       report.stages.size()));
  switch (report.verdict) {
    case ParityVerdict::Pass:
      break;
    case ParityVerdict::Fail:
      result.verdict = QaVerdict::Fail;
      if (!std::isfinite(report.worst_nmse)) result.value.reset();
      result.details.push_back("`aprctl parity --bisect` with the same options names the stage");
      break;
    case ParityVerdict::NotRun:
      throw NotRunnable(report.reason);
  }
  return result;
}

namespace {

// Keys that change the computation. Names, authors and file types may differ.
void compare_metadata(const Model& a, const Model& b, QaResult& result) {
  const std::string arch = a.meta.get_string("general.architecture");
  const auto text = [](const Metadata& meta, const std::string& key) -> std::string {
    const MetaValue* value = meta.find(key);
    if (value == nullptr) return "missing";
    if (std::holds_alternative<std::string>(*value)) return printable(meta.get_string(key));
    if (std::holds_alternative<bool>(*value)) return meta.get_bool(key) ? "true" : "false";
    if (std::holds_alternative<MetaArray>(*value)) return "a list";
    return fmt::format("{:g}", meta.get_float(key));
  };
  std::set<std::string> keys;
  for (const Metadata* meta : {&a.meta, &b.meta})
    for (const auto& [key, value] : meta->entries())
      if (key.starts_with(arch + ".")) keys.insert(key);
  keys.insert("general.architecture");
  for (const std::string& key : keys) {
    const std::string of_a = text(a.meta, key), of_b = text(b.meta, key);
    if (of_a != of_b && a.meta.has(key) && b.meta.has(key))
      result.details.push_back(fmt::format("{} is {} here and {} there", printable(key), of_a, of_b));
  }
}

// Every tensor within what packing it costs. Returns the sum over matrices of the weights' own nmse.
double compare_tensors(const Model& a, const Model& b, Catalog& catalog, QaResult& result) {
  ThreadPool pool;
  double sum = 0;
  size_t unlike = 0;
  for (const Tensor& tensor : a.tensors) {
    const Tensor* other = b.find(tensor.name);
    if (other == nullptr || other->dims != tensor.dims) {
      result.details.push_back(fmt::format("{}: {} in the other file", printable(tensor.name),
                                           other == nullptr ? "is not" : "has another shape"));
      continue;
    }
    if (tensor.scales || other->scales) {
      ++unlike;
      continue;
    }
    const apr_quant_format &fa = catalog.format(tensor.qtype, tensor.format, tensor.name),
                           &fb = catalog.format(other->qtype, other->format, other->name);
    const double bound = packing_bound(tensor, fa, *other, fb);
    const Comparison c = compare(tensor_matrix(tensor, fa), tensor_matrix(*other, fb), bound, pool);
    if (tensor.dims.size() > 1) sum += c.measure.nmse();
    if (!harmless(c.verdict))
      result.details.push_back(fmt::format("{} ({} and {}): {}; nmse {:.1e}, packing explains {:.1e}",
                                           printable(tensor.name), tensor.format, other->format, describe(c),
                                           c.measure.nmse(), bound));
  }
  if (unlike > 0)
    log_info("formats: {} tensors whose scales lie beside them are judged by the logits alone", unlike);
  return sum;
}

}  // namespace

QaResult gate_formats(QaSubject& subject) {
  const std::string& path = subject.request().other;
  if (path.empty()) throw NotRunnable("no second file; --other names one with the same weights");
  const Model& model = subject.model();
  const Model other = open_model(path);
  QaResult result{QaVerdict::Pass, "worst nmse", 0.0, {}, "", {}};
  compare_metadata(model, other, result);
  const double weights = compare_tensors(model, other, *subject.request().catalog, result);
  const size_t differences = result.details.size();

  QaBackend& mine = subject.backend();
  const std::vector<int32_t> tokens = subject.prompt();
  const QaBackend theirs = subject.request().load_other(path);
  if (theirs.session->vocab() != mine.session->vocab())
    throw Error("{} has a vocabulary of {}, and this model one of {}", path, theirs.session->vocab(),
                mine.session->vocab());
  const std::vector<float> a = mine.session->feed_all(tokens, 0), b = theirs.session->feed_all(tokens, 0);
  // What the activations may round, and the weights' own error: a matrix off by e, as a share of its square, gives
  // products that are off by e, and errors of different matrices add as squares; the margin is parity_tolerance's.
  // Beyond a quarter two texts have little in common, whatever explains it.
  constexpr double kMargin = 4, kMost = 0.25;
  result.bound =
      std::min(kMost, parity_tolerance(*mine.plan, mine.precise, theirs.precise) + kMargin * weights);
  size_t worst = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const double nmse = logits_nmse(a.data() + i * mine.session->vocab(),
                                    b.data() + i * mine.session->vocab(), mine.session->vocab());
    if (!(nmse <= *result.value)) result.value = nmse, worst = i;
  }
  result.text =
      fmt::format("{} tensors, {} positions, worst at {}", model.tensors.size(), tokens.size(), worst);
  if (!(*result.value <= *result.bound)) {
    result.verdict = QaVerdict::Fail;
    result.text = fmt::format("the logits at position {} are further apart than the formats explain", worst);
  }
  if (differences > 0) {
    result.verdict = QaVerdict::Fail;
    result.text = fmt::format("{}{}", result.details.front(),
                              differences == 1 ? "" : fmt::format("; and {} more", differences - 1));
    result.details.erase(result.details.begin());
  }
  return result;
}

}  // namespace apr
