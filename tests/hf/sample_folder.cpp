#include "tests/hf/sample_folder.h"

#include <algorithm>
#include <stdexcept>

namespace apr_test {

using nlohmann::json;

std::string safetensors(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  std::string file(reinterpret_cast<const char*>(&length), sizeof length);
  return file + header + data;
}

std::string safetensors(const std::vector<RawTensor>& tensors) {
  json header = json::object();
  std::string data;
  for (const RawTensor& t : tensors) {
    header[t.name] = {
        {"dtype", t.dtype}, {"shape", t.shape}, {"data_offsets", {data.size(), data.size() + t.data.size()}}};
    data += t.data;
  }
  return safetensors(header.dump(), data);
}

SampleFolder::SampleFolder() {
  config = json::parse(R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
    "num_hidden_layers": 1, "hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "vocab_size": 10,
    "tie_word_embeddings": false, "rope_theta": 10000.0})");
  const auto add = [&](const std::string& name, std::vector<uint64_t> shape) {
    uint64_t elements = 1;
    for (const uint64_t dim : shape) elements *= dim;
    tensors.push_back({name, "BF16", std::move(shape), std::string(elements * 2, '\x01')});
  };
  add("model.embed_tokens.weight", {10, 8});
  const std::string layer = "model.layers.0.";
  add(layer + "input_layernorm.weight", {8});
  add(layer + "self_attn.q_proj.weight", {8, 8});
  add(layer + "self_attn.k_proj.weight", {4, 8});
  add(layer + "self_attn.v_proj.weight", {4, 8});
  add(layer + "self_attn.o_proj.weight", {8, 8});
  add(layer + "post_attention_layernorm.weight", {8});
  add(layer + "mlp.gate_proj.weight", {16, 8});
  add(layer + "mlp.up_proj.weight", {16, 8});
  add(layer + "mlp.down_proj.weight", {8, 16});
  add("model.norm.weight", {8});
  add("lm_head.weight", {10, 8});
}

RawTensor& SampleFolder::tensor(const std::string& name) {
  for (RawTensor& t : tensors)
    if (t.name == name) return t;
  throw std::logic_error("no tensor " + name);
}

void SampleFolder::erase(const std::string& name) {
  tensors.erase(
      std::find_if(tensors.begin(), tensors.end(), [&](const RawTensor& t) { return t.name == name; }));
}

std::string SampleFolder::write(const TempDir& dir) const {
  dir.write("config.json", config.dump());
  dir.write("model.safetensors", safetensors(tensors));
  return dir.path().string();
}

}  // namespace apr_test
