#include "core/runtime/fp8_warm_up.h"

#include <algorithm>
#include <atomic>
#include <set>
#include <vector>

#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/base/thread_pool.h"
#include "core/dispatch/weight_quant_type.h"

namespace apr {
namespace {

// The well-known formats of single elements with a scale are the 8-bit floats.
bool is_fp8(const apr_weight& weight) {
  const auto type = parse_qtype(weight.format->name);
  return type && scaled_block(*type).has_value();
}

[[noreturn]] void damaged(const apr_weight& weight, const apr_error& error) {
  throw Error(
      "tensor '{}' is damaged: {}; the file must be fetched or converted again (APR_SKIP_FP8_WARMUP=1 loads "
      "it as "
      "it is)",
      weight.name, error.message);
}

// All rows, on all threads; done(bytes) after each piece, on any of them.
template <typename Done>
void check_rows(const apr_weight& weight, ThreadPool& pool, const Done& done) {
  const apr_quant_format& format = *weight.format;
  const auto* data = static_cast<const uint8_t*>(weight.data);
  const uint64_t row_bytes = weight.bytes / weight.n;
  const auto valid = [&](uint64_t first, uint64_t rows, apr_error& error) {
    error.struct_size = sizeof error;
    return format.validate(data + first * row_bytes, rows, weight.k, &error) == APR_OK;
  };
  std::atomic<bool> good{true};
  pool.parallel_for(weight.n, std::max<uint64_t>(1, (1 << 20) / row_bytes), [&](size_t begin, size_t end) {
    apr_error error{};
    if (!valid(begin, end - begin, error)) good = false;
    done((end - begin) * row_bytes);
  });
  if (good) return;
  // Once more from the first row, so that the message counts rows as the tensor does.
  apr_error error{};
  if (!valid(0, weight.n, error)) damaged(weight, error);
  throw Error("tensor '{}': {} judges the same rows differently when it is asked twice", weight.name,
              format.name);
}

}  // namespace

Fp8WarmUp warm_up_fp8(const apr_plan& plan, bool skip, const ProgressFn& progress) {
  const auto start = Clock::now();
  std::vector<const apr_weight*> weights;
  std::set<const void*> seen;  // tied weights are stored once
  Fp8WarmUp result;
  for (uint32_t i = 0; i < plan.n_weights; ++i) {
    const apr_weight& weight = *plan.weights[i];
    if (!is_fp8(weight) || weight.n == 0 || !seen.insert(weight.data).second) continue;
    weights.push_back(&weight);
    result.bytes += weight.bytes;
  }
  result.tensors = static_cast<uint32_t>(weights.size());
  result.skipped = skip && !weights.empty();
  if (skip || weights.empty()) return result;
  ThreadPool pool;
  std::atomic<uint64_t> read{0};
  for (const apr_weight* weight : weights) {
    check_rows(*weight, pool, [&read](uint64_t bytes) { read += bytes; });
    if (progress) progress("checking 8-bit floats", read, result.bytes);
  }
  result.seconds = seconds_since(start);
  return result;
}

}  // namespace apr
