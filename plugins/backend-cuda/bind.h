// From a program to launches: every index becomes an address, once, at load.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "plugins/backend-cuda/program.h"
#include "plugins/backend-cuda/weights.h"

namespace apr::cuda {

using Args = std::variant<LinearArgs, EmbedArgs, NormArgs, ConvertArgs, ElementwiseArgs, AttentionArgs,
                          ArgmaxArgs, TopKArgs>;

const void* address(const Args& args);

// What a step's numbers are read from, on the device. Offsets of one block that the host copies in one piece.
struct StateLayout {
  uint32_t rows;  // that the arrays have room for
  uint64_t tokens() const { return sizeof(StepState); }
  uint64_t positions() const { return tokens() + 4ull * rows; }
  uint64_t sequences() const { return positions() + 4ull * rows; }
  uint64_t selected() const { return sequences() + 4ull * rows; }  // rows of the body that the head reads
  uint64_t bytes() const { return selected() + 4ull * rows; }
};

struct KvCache {
  uint16_t* k;  // f16 [sequence][kv_head][n_ctx][head_dim]
  uint16_t* v;
};

// Addresses of one memory: the device's, or the host's in tests.
struct BindContext {
  const std::vector<Weight>* weights;        // of the plan
  const std::vector<const float*>* vectors;  // of the plan
  const std::vector<KvCache>* caches;
  const std::vector<float>* weight_scales;  // per weight of the plan: LinearArgs::w_scale
  uint32_t n_ctx;
  CUdeviceptr state;
  StateLayout state_layout;
  Successor next = {};  // of a decode step; nulls in other programs
};

// Addresses of a program's buffers.
struct BoundBuffer {
  CUdeviceptr base;
  BufferLayout layout;
};

// What the steps after `index` read first, at most `bytes` in all: whole matrices, and of the kernel that the last bytes
// go to the same share of every plane, from its start.
std::vector<Ahead> weights_ahead(const Program& program, size_t index, uint64_t bytes,
                                 const DeviceWeights& weights);

Args bind_step(const Step& step, const Program& program, const std::vector<BoundBuffer>& buffers,
               const BindContext& context, CUdeviceptr scratch);

}  // namespace apr::cuda
