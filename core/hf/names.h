// What tensors a model of Hugging Face's must have, and what GGUF calls them. Private to core/hf.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/hf/config.h"

namespace apr {

struct HfTensorName {
  std::string hf;               // "model.layers.0.self_attn.q_proj.weight"
  std::string gguf;             // "blk.0.attn_q.weight"
  std::vector<uint64_t> shape;  // slowest first: [N,K] or [N]
  bool required;
};

// In the order in which they are computed with.
std::vector<HfTensorName> hf_tensor_names(const HfConfig& config);

}  // namespace apr
