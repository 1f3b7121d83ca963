#include "core/hf/names.h"

#include <fmt/format.h>

namespace apr {

std::vector<HfTensorName> hf_tensor_names(const HfConfig& c) {
  const uint64_t q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
  struct Part {
    const char *hf, *gguf;
    std::vector<uint64_t> shape;  // of its weight
    bool bias;
  };
  std::vector<Part> parts = {{"input_layernorm", "attn_norm", {c.width}, false},
                             {"self_attn.q_proj", "attn_q", {q, c.width}, c.qkv_bias},
                             {"self_attn.k_proj", "attn_k", {kv, c.width}, c.qkv_bias},
                             {"self_attn.v_proj", "attn_v", {kv, c.width}, c.qkv_bias},
                             {"self_attn.o_proj", "attn_output", {c.width, q}, c.attention_bias},
                             {"post_attention_layernorm", "ffn_norm", {c.width}, false},
                             {"mlp.gate_proj", "ffn_gate", {c.ff, c.width}, c.mlp_bias},
                             {"mlp.up_proj", "ffn_up", {c.ff, c.width}, c.mlp_bias},
                             {"mlp.down_proj", "ffn_down", {c.width, c.ff}, c.mlp_bias}};
  if (c.qk_norm) {
    parts.push_back({"self_attn.q_norm", "attn_q_norm", {c.head_dim}, false});
    parts.push_back({"self_attn.k_norm", "attn_k_norm", {c.head_dim}, false});
  }
  std::vector<HfTensorName> names = {
      {"model.embed_tokens.weight", "token_embd.weight", {c.vocab, c.width}, true}};
  for (uint64_t layer = 0; layer < c.layers; ++layer) {
    for (const Part& part : parts) {
      const std::string hf = fmt::format("model.layers.{}.{}", layer, part.hf),
                        gguf = fmt::format("blk.{}.{}", layer, part.gguf);
      names.push_back({hf + ".weight", gguf + ".weight", part.shape, true});
      if (part.bias) names.push_back({hf + ".bias", gguf + ".bias", {part.shape[0]}, true});
    }
  }
  names.push_back({"model.norm.weight", "output_norm.weight", {c.width}, true});
  // Where the file does not say whether the head is the embedding, its presence does.
  if (!c.tied) names.push_back({"lm_head.weight", "output.weight", {c.vocab, c.width}, c.tied_said});
  return names;
}

}  // namespace apr
