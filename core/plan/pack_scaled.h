// Elements and scales that a container keeps apart, as packed rows.
#pragma once

#include <cstddef>
#include <vector>

#include "core/model/model.h"
#include "core/plugin/catalog.h"

namespace apr {

// The format of pack_scaled()'s rows.
const apr_quant_format& packed_format(const Tensor& tensor, Catalog& catalog);

struct PackedRows {
  const apr_quant_format* format;  // the tensor's own, or the wider one that its products need
  std::vector<std::byte> bytes;
};

// Of a tensor that has scales. Blocks of the tensor's own format where K is a multiple of them and no scale
// changes inside one; otherwise the products, rounded once, in scaled_block().expanded. Uses all CPUs.
PackedRows pack_scaled(const Tensor& tensor, Catalog& catalog);

}  // namespace apr
