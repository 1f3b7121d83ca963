// Changes a weight's format at load: APR_FORCE_QTYPE runs a layer through another kernel this way.
#pragma once

#include <cstddef>
#include <vector>

#include "apr/quant.h"
#include "core/model/model.h"

namespace apr {

// The tensor's rows, dequantised by `from` and quantised by `to`. Uses all CPUs. Throws apr::Error that names
// the tensor: `to` cannot be written, its block does not divide K, a weight is not finite.
std::vector<std::byte> requantize(const Tensor& tensor, const apr_quant_format& from,
                                  const apr_quant_format& to);

}  // namespace apr
