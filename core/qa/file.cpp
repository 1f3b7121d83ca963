// Gates on the file itself: what its header promises, and what its tensors hold.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <mutex>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/base/thread_pool.h"
#include "core/plan/plan.h"
#include "core/qa/gates.h"

namespace apr {

QaResult gate_header(QaSubject& subject) {
  const Model& model = subject.model();
  // The plan of the file as it is: without the probes that change formats.
  const std::unique_ptr<Plan> plan = build_plan(model, *subject.request().catalog);
  QaResult result{QaVerdict::Pass, "tensors", static_cast<double>(model.tensors.size()), {}, "", {}};
  result.text = fmt::format("{} tensors, {}, architecture {}", model.tensors.size(),
                            human_bytes(model.weight_bytes()), plan->c().arch);
  for (const std::string& note : plan->notes()) result.details.push_back(note);
  return result;
}

QaResult gate_weights(QaSubject& subject) {
  const Model& model = subject.model();
  QaResult result{QaVerdict::Pass, "bad tensors", 0.0, 0.0, "", {}};
  ThreadPool pool;
  uint64_t with_scales = 0;
  for (const Tensor& tensor : model.tensors) {
    // Elements with scales beside them (floats of 8 bits) become blocks only at load, which checks them.
    if (tensor.scales) {
      ++with_scales;
      continue;
    }
    const apr_quant_format& format =
        subject.request().catalog->format(tensor.qtype, tensor.format, tensor.name);
    const uint64_t n = tensor.n(), k = tensor.k(), row_bytes = tensor.bytes / std::max<uint64_t>(n, 1);
    // Pieces of about a mebibyte; the message counts rows from a piece's first one.
    const uint64_t rows = std::clamp<uint64_t>((1 << 20) / std::max<uint64_t>(row_bytes, 1), 1, n);
    std::map<uint64_t, std::string> bad;
    std::mutex mutex;
    pool.parallel_for((n + rows - 1) / rows, 1, [&](size_t begin, size_t end) {
      for (size_t piece = begin; piece < end; ++piece) {
        const uint64_t first = piece * rows, count = std::min(rows, n - first);
        apr_error error{};
        error.struct_size = sizeof error;
        if (format.validate(tensor.data + first * row_bytes, count, k, &error) == APR_OK) continue;
        const std::lock_guard lock(mutex);
        bad.emplace(first, printable(error.message, 300));
      }
    });
    if (bad.empty()) continue;
    const auto& [first, why] = *bad.begin();
    result.details.push_back(
        fmt::format("{} ({}): {}{}", printable(tensor.name), tensor.format, why,
                    first == 0 ? "" : fmt::format(" (rows counted from row {})", first)));
  }
  result.value = static_cast<double>(result.details.size());
  if (!result.details.empty()) {
    result.verdict = QaVerdict::Fail;
    result.text = fmt::format("{} of {} tensors hold what is no number: the file is damaged",
                              result.details.size(), model.tensors.size());
  } else if (model.tensors.empty()) {
    throw NotRunnable("the file has no tensors");
  } else if (with_scales == model.tensors.size()) {
    throw NotRunnable("every tensor has scales beside it, and is checked only at load");
  } else {
    result.text = fmt::format("{} read, all finite", human_bytes(model.weight_bytes()));
    if (with_scales > 0)
      result.details.push_back(
          fmt::format("{} tensors with scales beside them are checked at load", with_scales));
  }
  return result;
}

}  // namespace apr
