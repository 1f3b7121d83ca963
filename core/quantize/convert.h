// From packed rows in one format to packed rows in another, a few rows at a time on all threads, with the
// error that it makes. Memory is bounded by the rows in flight, not by the model or its largest tensor.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "core/base/thread_pool.h"
#include "core/model/gguf_writer.h"
#include "core/quantize/plan.h"

namespace apr {

// What a tensor's conversion cost. Sums are in double, in the order of the rows: the same for any number of
// threads.
struct ConversionError {
  double squared_error = 0.0;  // sum of (before - after)^2
  double squared = 0.0;        // sum of before^2
  double largest = 0.0;        // of |before - after|
  uint64_t elements = 0;

  double rmse() const;
  double relative() const;  // rmse over the weights' RMS; 0 for all zeros
  void add(const ConversionError& other);
};

// Called between pieces, on the calling thread, with weights done of the tensor. Throws to stop.
using ConversionProgress = std::function<void(uint64_t elements)>;

// Writes the tensor's packed bytes to the writer. source: its rows in decision.from, from file (null: from memory).
// Throws apr::Error that names the tensor and its rows: a
// weight is not finite or beyond the format's range, or a copied block decodes to NaN or infinity.
ConversionError convert_tensor(const TensorDecision& decision, const Tensor& source, const MappedFile* file,
                               ThreadPool& pool, GgufWriter& writer, const ConversionProgress& progress);

}  // namespace apr
