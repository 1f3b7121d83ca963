#include "core/compare/packing.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include "core/compare/measure.h"

namespace apr {

Matrix tensor_matrix(const Tensor& tensor, const apr_quant_format& format) {
  const uint64_t row_bytes = tensor.bytes / std::max<uint64_t>(tensor.n(), 1), k = tensor.k();
  return {tensor.n(), k,
          [data = tensor.data, row_bytes, k, &format](uint64_t first, uint64_t count, float* out) {
            format.dequantize(data + first * row_bytes, count, k, out);
          }};
}

double packing_bound(const Tensor& a, const apr_quant_format& fa, const Tensor& b,
                     const apr_quant_format& fb) {
  constexpr uint64_t kRows = 32;
  constexpr double kMargin = 4;  // other searches for scales, and weights by importance
  const auto cost = [=](const Tensor& from, const apr_quant_format& own, const apr_quant_format& other) {
    if (other.quantize == nullptr || from.k() % other.block_elements != 0) return 0.0;
    const Matrix rows = tensor_matrix(from, own);
    std::vector<float> x(from.k()), y(from.k());
    std::vector<std::byte> packed(from.k() / other.block_elements * other.block_bytes);
    Measure measure;
    apr_error error{};
    error.struct_size = sizeof error;
    const uint64_t n = std::min(kRows, rows.rows);
    for (uint64_t i = 0; i < n; ++i) {
      rows.read(i * (rows.rows - 1) / std::max<uint64_t>(n - 1, 1), 1, x.data());
      if (other.quantize(x.data(), 1, from.k(), nullptr, packed.data(), &error) != APR_OK) continue;
      other.dequantize(packed.data(), 1, from.k(), y.data());
      measure.add(x.data(), y.data(), x.size(), 0);
    }
    return measure.nmse();
  };
  if (&fa == &fb) return 0;  // packed alike: the same weights give the same bits, or nearly
  return kMargin * (cost(a, fa, fb) + cost(b, fb, fa));
}

}  // namespace apr
