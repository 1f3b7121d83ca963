#include "tools/quantisers/measure.h"

#include <cmath>
#include <limits>

#include "core/base/error.h"

namespace apr::compare {
namespace {

constexpr uint64_t kGrain = 16;  // rows that a thread takes at a time

uint64_t row_bytes(const apr_quant_format& format, uint64_t k) {
  return k / format.block_elements * format.block_bytes;
}

}  // namespace

std::vector<double> block_errors(const apr_quant_format& format, const Rows& rows, const float* importance,
                                 const std::vector<float>& decoded) {
  const uint64_t columns = format.block_elements;
  std::vector<double> errors(rows.weights.size() / columns);
  for (uint64_t b = 0; b < errors.size(); ++b) {
    double sum = 0, weights = 0;
    for (uint64_t i = b * columns; i < (b + 1) * columns; ++i) {
      const double miss = double{rows.weights[i]} - double{decoded[i]};
      const double weight = importance ? double{importance[i % rows.k]} : 1.0;
      sum += weight * miss * miss;
      weights += weight;
    }
    errors[b] = std::sqrt(sum / weights);
  }
  return errors;
}

std::vector<uint8_t> pack(const apr_quant_format& format, const Rows& rows, const float* importance,
                          ThreadPool& pool) {
  std::vector<uint8_t> packed(rows.n() * row_bytes(format, rows.k));
  pool.parallel_for(rows.n(), kGrain, [&](size_t begin, size_t end) {
    apr_error error{};
    error.struct_size = sizeof(error);
    if (format.quantize(rows.weights.data() + begin * rows.k, end - begin, rows.k, importance,
                        packed.data() + begin * row_bytes(format, rows.k), &error) != APR_OK)
      throw Error("{}, from row {} on: {}", rows.name, begin, error.message);
  });
  return packed;
}

double ratio_of(double ours, double peers) {
  if (peers > 0) return ours / peers;
  return ours > 0 ? std::numeric_limits<double>::infinity() : 1.0;
}

}  // namespace apr::compare
