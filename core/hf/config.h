// From a Hugging Face config.json to the metadata keys that GGUF has for the same. Private to core/hf.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/model/metadata.h"

namespace apr {

struct HfConfig {
  Metadata meta{"config.json"};
  uint64_t layers, width, ff, heads, kv_heads, head_dim, vocab;
  bool attention_bias;              // o has a bias; q, k and v too
  bool qkv_bias;                    // q, k and v have biases
  bool qk_norm;                     // q and k have a norm for each head
  bool mlp_bias;                    // gate, up and down have biases
  bool tied;                        // the head is the embedding
  bool tied_said;                   // ... and the file says so
  bool scaled;                      // quantization_config: 8-bit floats with scales
  uint64_t scale_block[2];          // rows and columns that share a scale, where scales have two sizes
  std::vector<float> rope_factors;  // Llama 3's divisors of the frequencies; empty: none
};

// Throws apr::Error that names the key: an architecture or a setting that would need another computation.
HfConfig read_hf_config(const nlohmann::json& config, const std::string& origin);

}  // namespace apr
