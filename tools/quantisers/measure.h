// A quantiser's error, block by block.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "apr/quant.h"
#include "core/base/thread_pool.h"

namespace apr::compare {

// Rows to be packed, and what each column's squared error counts.
struct Rows {
  std::string name;               // of a distribution or a tensor
  std::vector<float> weights;     // [n][k]
  std::vector<float> importance;  // [k]
  uint64_t k;
  uint64_t n() const { return weights.size() / k; }
};

// Root mean square error of each block of the decoded rows; of mean importance 1 where importance is not null.
std::vector<double> block_errors(const apr_quant_format& format, const Rows& rows, const float* importance,
                                 const std::vector<float>& decoded);

// Our bytes for the rows. Throws apr::Error: the quantiser refuses them.
std::vector<uint8_t> pack(const apr_quant_format& format, const Rows& rows, const float* importance,
                          ThreadPool& pool);

// A block's error over the peer's: 1 where neither errs, infinity where only ours does.
double ratio_of(double ours, double peers);

}  // namespace apr::compare
