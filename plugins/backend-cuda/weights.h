// Weights on the device: taken from the mapped file, laid out as kernels want them by the host's threads, and copied while
// the next piece is being laid out.
#pragma once

#include <functional>
#include <vector>

#include "apr/plan.h"
#include "core/base/thread_pool.h"
#include "plugins/backend-cuda/device.h"

namespace apr::cuda {

// Blocks of a codec in one row; the last one of a format of single elements may be part padding (zeros).
uint64_t blocks_of_row(const apr_weight& weight);

class DeviceWeights {
 public:
  DeviceWeights() = default;
  // layouts[i] belongs to plan.weights[i]; null for weights that no kernel reads. Weights that share data and layout (tied
  // embeddings) are stored once. progress(done, total) in bytes of the file, on the calling thread.
  DeviceWeights(const Gpu& gpu, const apr_plan& plan, const std::vector<const apr_layout*>& layouts,
                ThreadPool& threads, const std::function<void(uint64_t done, uint64_t total)>& progress);

  const std::vector<Weight>& all() const { return weights_; }  // by the plan's index
  // Planes of a weight, in bytes.
  const std::vector<uint64_t>& planes(size_t weight) const { return planes_[weight]; }
  uint64_t bytes() const { return memory_.bytes(); }

 private:
  DeviceMemory memory_;
  std::vector<Weight> weights_;  // as kernels take them
  std::vector<std::vector<uint64_t>> planes_;
};

// The plan's float vectors in one allocation.
class DeviceVectors {
 public:
  DeviceVectors() = default;
  DeviceVectors(const Gpu& gpu, const apr_plan& plan);
  const std::vector<const float*>& all() const { return vectors_; }
  uint64_t bytes() const { return memory_.bytes(); }

 private:
  DeviceMemory memory_;
  std::vector<const float*> vectors_;
};

}  // namespace apr::cuda
