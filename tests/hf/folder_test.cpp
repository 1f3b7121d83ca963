// A folder as a model: names, keys, parts, and what is refused.
#include <doctest/doctest.h>

#include "core/hf/open_model.h"
#include "tests/base/expect_error.h"
#include "tests/hf/sample_folder.h"

using apr_test::error_of;
using apr_test::SampleFolder;
using apr_test::TempDir;

namespace {

std::string refusal(const SampleFolder& folder) {
  const TempDir dir;
  const std::string path = folder.write(dir);
  return error_of([&] { return apr::open_model(path).tensors.size(); });
}

std::string config_refusal(const char* key, const nlohmann::json& value) {
  SampleFolder folder;
  folder.config[key] = value;
  return refusal(folder);
}

}  // namespace

TEST_CASE("tensors and keys have GGUF's names") {
  const TempDir dir;
  const apr::Model model = apr::open_model(SampleFolder().write(dir));
  CHECK(model.tensors.size() == 12);
  CHECK(model.require("blk.0.ffn_down.weight").k() == 16);
  CHECK(model.require("output.weight").n() == 10);
  CHECK(model.require("token_embd.weight").format == "bf16");
  CHECK(model.meta.get_string("general.architecture") == "llama");
  CHECK(model.meta.get_string("apr.rope_pairs") == "halves");
  CHECK(model.meta.get_uint("llama.attention.key_length", 100) == 4);
  CHECK(model.meta.get_string("general.name") == dir.path().filename().string());
  SampleFolder mistral;
  mistral.config["architectures"] = {"MistralForCausalLM"};
  const TempDir other;
  CHECK(apr::open_model(mistral.write(other)).meta.get_uint("llama.attention.sliding_window", 1 << 20) ==
        4096);
  mistral.config["sliding_window"] = nullptr;
  CHECK_FALSE(apr::open_model(mistral.write(other)).meta.has("llama.attention.sliding_window"));
  // The same by the file's name.
  CHECK(apr::open_model(dir / "model.safetensors").tensors.size() == 12);
}

TEST_CASE("a model in parts") {
  const TempDir dir;
  const SampleFolder all;
  dir.write("config.json", all.config.dump());
  const size_t half = all.tensors.size() / 2;
  const auto middle = all.tensors.begin() + static_cast<std::ptrdiff_t>(half);
  nlohmann::json map;
  for (size_t i = 0; i < all.tensors.size(); ++i)
    map[all.tensors[i].name] = i < half ? "a.safetensors" : "b.safetensors";
  const auto index = [&](const nlohmann::json& weights) {
    dir.write("model.safetensors.index.json", nlohmann::json{{"weight_map", weights}}.dump());
    return error_of([&] { return apr::open_model(dir.path().string()).tensors.size(); });
  };
  dir.write("a.safetensors", apr_test::safetensors({all.tensors.begin(), middle}));
  CHECK_HAS(index(map), "b.safetensors: no such file");
  dir.write("b.safetensors", apr_test::safetensors({middle, all.tensors.end()}));
  CHECK(index(map) == "(no error)");
  auto bent = map;
  bent["model.norm.weight"] = "a.safetensors";
  CHECK_HAS(index(bent), "a.safetensors: tensor 'model.norm.weight' is missing");
  bent["model.norm.weight"] = "../b.safetensors";
  CHECK_HAS(index(bent), "tensor 'model.norm.weight' must be a .safetensors file of this folder");
  bent["model.norm.weight"] = 3;
  CHECK_HAS(index(bent), "must be a .safetensors file of this folder");
  CHECK_HAS(index(5), "weight_map");
  dir.write("b.safetensors", apr_test::safetensors(all.tensors));
  CHECK_HAS(index(map), "is also in");
}

TEST_CASE("tensors must be those of the configuration") {
  SampleFolder folder;
  folder.erase("model.layers.0.mlp.up_proj.weight");
  CHECK_HAS(refusal(folder), "tensor 'model.layers.0.mlp.up_proj.weight' is missing");
  folder = {};
  folder.erase("lm_head.weight");
  CHECK_HAS(refusal(folder), "tensor 'lm_head.weight' is missing");
  folder.config.erase("tie_word_embeddings");
  CHECK(refusal(folder) == "(no error)");
  folder = {};
  folder.tensor("model.layers.0.self_attn.k_proj.weight").shape = {8, 4};
  CHECK_HAS(refusal(folder),
            "model.safetensors: tensor 'model.layers.0.self_attn.k_proj.weight' has shape [8,4]");
  folder = {};
  folder.tensor("model.norm.weight").dtype = "I16";
  CHECK_HAS(refusal(folder), "tensor 'model.norm.weight' is I16");
  folder = {};
  folder.tensors.push_back({"model.layers.0.mlp.up_proj.weight_scale", "F32", {1}, std::string(4, '\0')});
  CHECK_HAS(refusal(folder), "'model.layers.0.mlp.up_proj.weight_scale' is a scale of no 8-bit floats");
  folder = {};
  folder.config["attention_bias"] = true;
  CHECK_HAS(refusal(folder), "'model.layers.0.self_attn.q_proj.bias' is missing");
}

TEST_CASE("scales of 8-bit floats") {
  const auto with = [](const char* name, const char* dtype, std::vector<uint64_t> shape,
                       const std::string& data) {
    SampleFolder folder;
    auto& t = folder.tensor("model.layers.0.mlp.up_proj.weight");
    t.dtype = "F8_E4M3";
    t.data.resize(16 * 8);
    if (name[0]) folder.tensors.push_back({t.name + name, dtype, std::move(shape), data});
    folder.config["quantization_config"] = {{"quant_method", "fp8"}, {"weight_block_size", {8, 4}}};
    return folder;
  };
  const auto scales = [](const SampleFolder& folder) {
    const TempDir dir;
    return *apr::open_model(folder.write(dir)).require("blk.0.ffn_up.weight").scales;
  };
  const std::string one("\0\0\x80\x3f", 4), half("\0\x3c", 2), bfloat("\x80\x3f", 2);
  CHECK(scales(with("_scale", "F32", {}, one)).rows == 16);
  const auto rows = scales(with("_scale", "F16", {16, 1}, [&] {
    std::string s;
    for (int i = 0; i < 16; ++i) s += half;
    return s;
  }()));
  CHECK(rows.rows == 1);
  CHECK(rows.columns == 8);
  CHECK(rows.values == std::vector<float>(16, 1.0f));
  const auto blocks = scales(with("_scale_inv", "BF16", {2, 2}, bfloat + bfloat + bfloat + bfloat));
  CHECK(blocks.rows == 8);
  CHECK(blocks.columns == 4);
  CHECK(blocks.across == 2);
  CHECK_HAS(refusal(with("_scale_inv", "F32", {3}, one + one + one)),
            "up_proj.weight_scale_inv' has shape [3]");
  CHECK_HAS(refusal(with("_scale", "I32", {1}, one)), "up_proj.weight_scale' is I32");
  CHECK_HAS(refusal(with("_scale", "F32", {1}, std::string("\0\0\x80\x7f", 4))), "scale 0 is inf");
  CHECK_HAS(refusal(with("", "", {}, "")), "neither 'model.layers.0.mlp.up_proj.weight_scale' nor");
  SampleFolder other = with("_scale", "F32", {1}, one);
  other.config["quantization_config"]["quant_method"] = "gptq";
  CHECK_HAS(refusal(other), "quant_method 'gptq' is not supported");
}

TEST_CASE("settings that would need another computation are refused") {
  CHECK_HAS(config_refusal("architectures", {"GemmaForCausalLM"}), "'GemmaForCausalLM'");
  CHECK_HAS(config_refusal("architectures", 5), "architecture");
  CHECK_HAS(config_refusal("hidden_act", "gelu"), "hidden_act 'gelu'");
  CHECK_HAS(config_refusal("hidden_size", "8"), "'hidden_size'");
  CHECK_HAS(config_refusal("hidden_size", -8), "'hidden_size'");
  CHECK_HAS(config_refusal("num_attention_heads", 0), "'num_attention_heads' is 0");
  CHECK_HAS(config_refusal("num_hidden_layers", 100000), "num_hidden_layers");
  CHECK_HAS(config_refusal("num_hidden_layers", 2), "'model.layers.1.input_layernorm.weight' is missing");
  CHECK_HAS(config_refusal("partial_rotary_factor", 0.5), "partial_rotary_factor");
  CHECK_HAS(config_refusal("rope_scaling", {{"rope_type", "longrope"}}), "rope type 'longrope'");
  CHECK_HAS(config_refusal("rope_scaling", {{"rope_type", "llama3"}}), "'factor' is missing");
  CHECK_HAS(config_refusal("rope_scaling", 5), "rope");
  CHECK_HAS(config_refusal("quantization_config", {{"quant_method", "awq"}}), "quant_method 'awq'");
  const TempDir dir;
  SampleFolder().write(dir);
  dir.write("config.json", "{\"a\": 1,");
  CHECK_HAS(error_of([&] { return apr::open_model(dir.path().string()).tensors.size(); }),
            "config.json: no valid JSON");
  std::filesystem::remove(dir / "model.safetensors");
  CHECK_HAS(error_of([&] { return apr::open_model(dir.path().string()).tensors.size(); }),
            "neither model.safetensors");
  dir.write("pytorch_model-00001-of-00002.bin", "x");
  CHECK_HAS(error_of([&] { return apr::open_model(dir.path().string()).tensors.size(); }),
            "00002.bin is a pickle");
}

TEST_CASE("any value in any place of config.json is read or refused") {
  const nlohmann::json values = {nullptr,
                                 true,
                                 -1,
                                 0,
                                 1,
                                 1.5,
                                 1e300,
                                 4294967296u,
                                 18446744073709551615u,
                                 "x",
                                 nlohmann::json::array(),
                                 nlohmann::json::array({8, 0}),
                                 nlohmann::json::object()};
  SampleFolder sample;
  sample.config["head_dim"] = 4;
  sample.config["rope_scaling"] = {
      {"rope_type", "yarn"}, {"factor", 4.0},         {"original_max_position_embeddings", 32},
      {"mscale", 1.0},       {"mscale_all_dim", 0.5}, {"beta_fast", 32}};
  sample.config["quantization_config"] = {
      {"quant_method", "compressed-tensors"},
      {"format", "float-quantized"},
      {"weight_block_size", {8, 4}},
      {"config_groups",
       {{"group_0",
         {{"weights",
           {{"num_bits", 8}, {"type", "float"}, {"strategy", "block"}, {"block_structure", {8, 8}}}}}}}}};
  sample.config["sliding_window"] = 16;
  int refused = 0, read = 0;
  const TempDir dir;
  sample.write(dir);
  const nlohmann::json flat = sample.config.flatten();
  for (const auto& [place, unused] : flat.items()) {
    for (size_t at = place.size(); at != std::string::npos && at > 0; at = place.rfind('/', at - 1)) {
      for (const auto& value : values) {
        nlohmann::json config = sample.config;
        config[nlohmann::json::json_pointer(place.substr(0, at))] = value;
        dir.write("config.json", config.dump());
        try {
          read += apr::open_model(dir.path().string()).tensors.size() > 0;
        } catch (const apr::Error& e) {
          CHECK(std::string_view(e.what()).size() > 10);
          ++refused;
        }
      }
    }
  }
  CHECK(refused > 100);
  CHECK(read > 50);
}

TEST_CASE("rotary embeddings") {
  const auto meta = [](const nlohmann::json& scaling) {
    SampleFolder folder;
    folder.config["rope_scaling"] = scaling;
    const TempDir dir;
    return apr::open_model(folder.write(dir));
  };
  const auto linear = meta({{"type", "linear"}, {"factor", 4.0}});
  CHECK(linear.meta.get_string("llama.rope.scaling.type") == "linear");
  CHECK(linear.meta.get_float("llama.rope.scaling.factor") == 4.0);
  const auto yarn = meta({{"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 32}});
  CHECK(yarn.meta.get_uint("llama.rope.scaling.original_context_length", 1000) == 32);
  CHECK(yarn.meta.get_uint("llama.context_length", 1000) == 128);
  CHECK(yarn.meta.get_float("llama.rope.scaling.attn_factor") == doctest::Approx(1.0));
  const auto llama3 = meta({{"rope_type", "llama3"},
                            {"factor", 8.0},
                            {"low_freq_factor", 1.0},
                            {"high_freq_factor", 4.0},
                            {"original_max_position_embeddings", 64}});
  const apr::Tensor& factors = llama3.require("rope_freqs.weight");
  REQUIRE(factors.elements() == 2);
  float values[2];
  std::copy_n(factors.data, sizeof values, reinterpret_cast<std::byte*>(values));
  // Waves of 2 pi and 628 positions: above 16 and above 64, where the context is 64.
  CHECK(values[0] == 1.0f);
  CHECK(values[1] == 8.0f);
}
