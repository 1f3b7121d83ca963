// Tensors as matrices of floats, and how far apart two packings of the same weights may be.
#pragma once

#include "apr/quant.h"
#include "core/compare/matrix.h"
#include "core/model/model.h"

namespace apr {

// A tensor's rows as floats, through its format's plugin. The tensor's mapping outlives the matrix.
Matrix tensor_matrix(const Tensor& tensor, const apr_quant_format& format);

// The nmse that packing alone may make between two tensors that were written from the same weights: what
// quantising each to the other's format costs, measured on some of their rows, with a margin. 0 when neither
// format can be written.
double packing_bound(const Tensor& a, const apr_quant_format& fa, const Tensor& b,
                     const apr_quant_format& fb);

}  // namespace apr
