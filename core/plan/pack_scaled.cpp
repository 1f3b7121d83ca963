#include "core/plan/pack_scaled.h"

#include <cstring>

#include "core/base/error.h"
#include "core/base/thread_pool.h"

namespace apr {

namespace {

ScaledBlock block_of(const Tensor& tensor) {
  const std::optional<ScaledBlock> block = scaled_block(tensor.qtype);
  if (!block || !tensor.scales) throw Error("internal error: tensor '{}' has no scales to pack", tensor.name);
  return *block;
}

// No block is partial, and none has two scales.
bool fits(const Tensor& tensor, const ScaledBlock& block) {
  const uint64_t k = tensor.k();
  return k % block.elements == 0 &&
         (tensor.scales->columns >= k || tensor.scales->columns % block.elements == 0);
}

}  // namespace

const apr_quant_format& packed_format(const Tensor& tensor, Catalog& catalog) {
  const ScaledBlock block = block_of(tensor);
  return fits(tensor, block) ? catalog.format(tensor.qtype, tensor.format, tensor.name)
                             : catalog.format(block.expanded, name(block.expanded), tensor.name);
}

PackedRows pack_scaled(const Tensor& tensor, Catalog& catalog) {
  const ScaledBlock block = block_of(tensor);
  const ElementScales& scales = *tensor.scales;
  const apr_quant_format& own = catalog.format(tensor.qtype, tensor.format, tensor.name);
  const uint64_t n = tensor.n(), k = tensor.k(), width = block.elements, element = block.element_bytes;
  const uint64_t blocks = (k + width - 1) / width, block_bytes = width * element + sizeof(float);
  const auto scale = [&](uint64_t row, uint64_t column) {
    return scales.values[row / scales.rows * scales.across + column / scales.columns];
  };
  // Column k0's block of a row; a row's last one may be partial and is filled up with zeros.
  const auto make_block = [&](uint64_t row, uint64_t k0, float factor, std::byte* out) {
    const uint64_t columns = std::min(width, k - k0);
    std::memcpy(out, tensor.data + (row * k + k0) * element, columns * element);
    std::memset(out + columns * element, 0, (width - columns) * element);
    std::memcpy(out + width * element, &factor, sizeof(factor));
  };

  PackedRows packed;
  ThreadPool pool;
  packed.format = &packed_format(tensor, catalog);
  if (packed.format == &own) {
    packed.bytes.resize(n * blocks * block_bytes);
    pool.parallel_for(n, 16, [&](size_t begin, size_t end) {
      for (size_t row = begin; row < end; ++row)
        for (uint64_t b = 0; b < blocks; ++b)
          make_block(row, b * width, scale(row, b * width),
                     packed.bytes.data() + (row * blocks + b) * block_bytes);
    });
    return packed;
  }
  packed.bytes.resize(n * k * sizeof(float));
  pool.parallel_for(n, 16, [&](size_t begin, size_t end) {
    std::vector<std::byte> row_blocks(blocks * block_bytes);
    std::vector<float> values(blocks * width);
    for (size_t row = begin; row < end; ++row) {
      for (uint64_t b = 0; b < blocks; ++b)
        make_block(row, b * width, 1.0f, row_blocks.data() + b * block_bytes);
      own.dequantize(row_blocks.data(), 1, blocks * width, values.data());
      for (uint64_t j = 0; j < k; ++j) values[j] *= scale(row, j);
      std::memcpy(packed.bytes.data() + row * k * sizeof(float), values.data(), k * sizeof(float));
    }
  });
  return packed;
}

}  // namespace apr
