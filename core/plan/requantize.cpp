#include "core/plan/requantize.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/base/thread_pool.h"

namespace apr {

std::vector<std::byte> requantize(const Tensor& tensor, const apr_quant_format& from,
                                  const apr_quant_format& to) {
  const uint64_t n = tensor.n(), k = tensor.k();
  if (!to.quantize)
    throw Error("tensor '{}': format {} can only be read, not written", printable(tensor.name), to.name);
  if (k % to.block_elements != 0) {
    throw Error("tensor '{}': rows of {} columns are no whole number of {} blocks ({} columns each)",
                printable(tensor.name), k, to.name, to.block_elements);
  }
  const uint64_t from_row = k / from.block_elements * from.block_bytes;
  const uint64_t to_row = k / to.block_elements * to.block_bytes;
  std::vector<std::byte> packed(n * to_row);
  // A piece's floats stay in a core's cache: 64 Ki floats are 256 KiB.
  const uint64_t rows = std::clamp<uint64_t>((64 << 10) / k, 1, n);
  ThreadPool pool;
  pool.parallel_for((n + rows - 1) / rows, 1, [&](size_t begin, size_t end) {
    std::vector<float> floats(rows * k);
    apr_error error{};
    error.struct_size = sizeof(error);
    for (size_t piece = begin; piece < end; ++piece) {
      const uint64_t first = piece * rows, count = std::min(rows, n - first);
      from.dequantize(tensor.data + first * from_row, count, k, floats.data());
      const apr_status status =
          to.quantize(floats.data(), count, k, nullptr, packed.data() + first * to_row, &error);
      if (status == APR_OK) continue;
      throw Error("tensor '{}': cannot be written as {} (rows {} to {}): {}", printable(tensor.name), to.name,
                  first, first + count - 1, printable(error.message, sizeof(error.message)));
    }
  });
  return packed;
}

}  // namespace apr
