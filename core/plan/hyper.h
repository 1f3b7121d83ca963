// Hyper-parameters of a decoder from a model's metadata, checked. Keys and their defaults are those of the
// GGUF specification (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md); whatever it does not give a
// default for is required.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/model/metadata.h"

namespace apr {

enum class RopeScaling { None, Linear, Yarn };

struct RopeParameters {
  uint32_t dims;  // columns of a head that are rotated: even, at most head_dim
  double freq_base;
  RopeScaling scaling;
  double factor;               // how much longer the context became: positions are divided by it (> 0)
  double original_context;     // yarn: tokens that the model was first trained on
  double attention_factor;     // a further multiplier of the rotated pairs
  double yarn_extrapolation;   // yarn: 1 mixes as published, 0 interpolates all frequencies
  double yarn_beta_fast;       // yarn: rotations over original_context above which a pair is left alone
  double yarn_beta_slow;       // yarn: rotations below which a pair is fully interpolated
  double yarn_log_multiplier;  // yarn: mscale_all_dim of the model's configuration, 0 = not given
};

struct LayerParameters {
  uint32_t n_heads;
  uint32_t n_kv_heads;  // divides n_heads
  uint32_t n_ff;        // width of the feed-forward layer
};

struct HyperParameters {
  std::string arch;
  uint32_t n_ctx_train;  // tokens
  uint32_t n_embd;
  uint32_t head_dim;  // of queries, keys and values
  uint32_t
      window;  // attention.sliding_window in tokens, 0 = none; which architecture obeys it is its own matter
  float eps;   // of every RMS norm
  RopeParameters rope;
  std::vector<LayerParameters> layers;  // [block_count]
};

// Throws apr::Error that names the key, its value and the file.
HyperParameters read_hyper_parameters(const Metadata& meta, const std::string& arch);

}  // namespace apr
