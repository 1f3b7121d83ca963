#include "core/hf/config.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string_view>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/base/log.h"

namespace apr {

namespace {

using nlohmann::json;

// Null and missing are the same in these files.
const json* find(const json& object, const char* key) {
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

class Config {
 public:
  Config(const json& config, const std::string& origin) : json_(config), origin_(origin) {}

  const json& all() const { return json_; }
  uint64_t count(const char* key) const {
    const json* value = find(json_, key);
    if (!value) throw Error("{}: '{}' is missing", origin_, key);
    // Positions are int32 in a plan, and nothing else is larger; products of two fit 64 bits.
    if (!value->is_number_unsigned() || value->get<uint64_t>() > INT32_MAX)
      throw Error("{}: '{}' is {}; a whole number from 0 to {} is needed", origin_, key,
                  printable(value->dump()), INT32_MAX);
    return value->get<uint64_t>();
  }
  uint64_t count_or(const char* key, uint64_t fallback) const {
    return find(json_, key) ? count(key) : fallback;
  }
  double real_or(const json& object, const char* key, double fallback) const {
    const json* value = find(object, key);
    if (!value) return fallback;
    if (!value->is_number()) throw Error("{}: '{}' must be a number", origin_, key);
    return value->get<double>();
  }
  double real(const json& object, const char* key) const {
    if (!find(object, key)) throw Error("{}: '{}' is missing", origin_, key);
    return real_or(object, key, 0);
  }
  bool flag(const char* key, bool fallback) const {
    const json* value = find(json_, key);
    if (!value) return fallback;
    if (!value->is_boolean()) throw Error("{}: '{}' must be true or false", origin_, key);
    return value->get<bool>();
  }
  std::string text(const json& object, const char* key, const char* fallback) const {
    const json* value = find(object, key);
    if (!value) return fallback;
    if (!value->is_string()) throw Error("{}: '{}' must be a text", origin_, key);
    return value->get<std::string>();
  }
  const std::string& origin() const { return origin_; }

 private:
  const json& json_;
  const std::string& origin_;
};

struct Known {
  const char* name;               // of the class in `architectures`
  const char* arch;               // GGUF's name
  bool qkv_bias;                  // always
  uint64_t head_dim;              // where the file does not say; 0: hidden_size / num_attention_heads
  bool attention_bias, mlp_bias;  // obeys these keys
  bool qk_norm;
};
constexpr Known kKnown[] = {{"LlamaForCausalLM", "llama", false, 0, true, true, false},
                            {"MistralForCausalLM", "llama", false, 0, false, false, false},
                            {"Qwen2ForCausalLM", "qwen2", true, 0, false, false, false},
                            {"Qwen3ForCausalLM", "qwen3", false, 128, true, false, true}};

const Known& known(const Config& config) {
  const json* list = find(config.all(), "architectures");
  std::string wanted;
  if (list && list->is_array() && list->size() == 1 && (*list)[0].is_string())
    wanted = (*list)[0].get<std::string>();
  for (const Known& one : kKnown)
    if (wanted == one.name) return one;
  throw Error(
      "{}: architecture '{}' (key 'architectures') is not known to this program; it knows LlamaForCausalLM, "
      "MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM",
      config.origin(), printable(wanted));
}

// Llama 3: long waves are slowed down by the factor, short ones are not, those between smoothly.
std::vector<float> llama3_factors(const Config& c, const json& rope, double theta, uint64_t dims) {
  const double factor = c.real(rope, "factor"), low = c.real(rope, "low_freq_factor"),
               high = c.real(rope, "high_freq_factor"),
               context = c.real(rope, "original_max_position_embeddings");
  if (!(factor > 0) || !(high > low) || !(low > 0))
    throw Error("{}: the rope scaling needs factor > 0 and high_freq_factor > low_freq_factor > 0",
                c.origin());
  std::vector<float> factors;
  for (uint64_t pair = 0; pair < dims / 2; ++pair) {
    const double wave =
        2 * std::numbers::pi * std::pow(theta, 2.0 * static_cast<double>(pair) / static_cast<double>(dims));
    double divisor = 1;
    if (wave > context / low) {
      divisor = factor;
    } else if (wave >= context / high) {
      const double smooth = (context / wave - low) / (high - low);
      divisor = 1 / ((1 - smooth) / factor + smooth);
    }
    factors.push_back(static_cast<float>(divisor));
  }
  return factors;
}

// Adds the keys of the rotary embedding, and context_length, which some scalings extend.
void read_rope(const Config& c, const std::string& arch, uint64_t dims, uint64_t context, HfConfig& out) {
  // Newer files have everything in rope_parameters; older ones a base at the top and rope_scaling.
  const json empty = json::object();
  const json* found = find(c.all(), "rope_parameters");
  if (!found) found = find(c.all(), "rope_scaling");
  const json& rope = found ? *found : empty;
  if (!rope.is_object()) throw Error("{}: the rope parameters must be an object", c.origin());
  const double theta = c.real_or(rope, "rope_theta", c.real_or(c.all(), "rope_theta", 10000.0));
  const std::string type = c.text(rope, "rope_type", c.text(rope, "type", "default").c_str());
  if (c.real_or(rope, "partial_rotary_factor", c.real_or(c.all(), "partial_rotary_factor", 1.0)) != 1.0)
    throw Error("{}: 'partial_rotary_factor' other than 1 is not supported", c.origin());
  const auto key = [&](const char* name) { return arch + ".rope." + name; };
  Metadata& meta = out.meta;
  const uint64_t original = rope.contains("original_max_position_embeddings")
                                ? Config(rope, c.origin()).count("original_max_position_embeddings")
                                : context;
  // People who switch YaRN on in a file leave max_position_embeddings as it was.
  const double factor_or_1 = c.real_or(rope, "factor", 1.0);
  if (type == "yarn" && factor_or_1 > 1 && factor_or_1 * static_cast<double>(original) <= INT32_MAX)
    context = std::max(context, static_cast<uint64_t>(factor_or_1 * static_cast<double>(original)));
  meta.add(arch + ".context_length", context);
  meta.add(key("freq_base"), theta);
  if (type == "default") return;
  if (type == "llama3") {
    if (arch != "llama")
      throw Error("{}: rope type llama3 is supported in Llama's architecture only", c.origin());
    out.rope_factors = llama3_factors(c, rope, theta, dims);
    return;
  }
  if (type != "linear" && type != "yarn") {
    throw Error("{}: rope type '{}' is not supported; default, linear, llama3 and yarn are", c.origin(),
                printable(type));
  }
  const double factor = c.real(rope, "factor");
  meta.add(key("scaling.type"), type);
  meta.add(key("scaling.factor"), factor);
  if (type == "linear") return;
  if (const json* truncate = find(rope, "truncate"); truncate && *truncate != true)
    throw Error("{}: yarn with truncate = false is not supported", c.origin());
  meta.add(key("scaling.original_context_length"), original);
  const auto magnitude = [&](double m) { return factor <= 1 ? 1.0 : 0.1 * m * std::log(factor) + 1.0; };
  const double m = c.real_or(rope, "mscale", 0), all = c.real_or(rope, "mscale_all_dim", 0);
  const double usual = m != 0 && all != 0 ? magnitude(m) / magnitude(all) : magnitude(1);
  // The plan multiplies with yarn's own magnitude: what is left is the quotient.
  meta.add(key("scaling.attn_factor"), c.real_or(rope, "attention_factor", usual) / magnitude(1));
  meta.add(key("scaling.yarn_beta_fast"), c.real_or(rope, "beta_fast", 32));
  meta.add(key("scaling.yarn_beta_slow"), c.real_or(rope, "beta_slow", 1));
}

void read_scale_block(const Config& c, const json& block, HfConfig& out) {
  const auto size = [](const json& n) { return n.is_number_unsigned() && n.get<uint64_t>() > 0; };
  if (!block.is_array() || block.size() != 2 || !size(block[0]) || !size(block[1]))
    throw Error("{}: quantization_config: a block of scales must be two sizes of at least 1, not {}",
                c.origin(), printable(block.dump()));
  for (size_t i = 0; i < 2; ++i) out.scale_block[i] = block[i].get<uint64_t>();
}

void read_quantization(const Config& c, HfConfig& out) {
  const json* q = find(c.all(), "quantization_config");
  if (!q) return;
  if (!q->is_object()) throw Error("{}: 'quantization_config' must be an object", c.origin());
  const std::string method = c.text(*q, "quant_method", "");
  const bool known = method == "fp8" || method == "fbgemm_fp8" ||
                     (method == "compressed-tensors" && c.text(*q, "format", "") == "float-quantized") ||
                     (method == "modelopt" && c.text(*q, "quant_algo", "") == "FP8");
  if (!known)
    throw Error(
        "{}: quantization_config: quant_method '{}' is not supported; 8-bit floats with scales are (fp8, "
        "fbgemm_fp8, modelopt's FP8, compressed-tensors of format float-quantized)",
        c.origin(), printable(method));
  out.scaled = true;
  if (const json* block = find(*q, "weight_block_size")) read_scale_block(c, *block, out);
  // Compressed-tensors have a description for each group of layers.
  const json* groups = find(*q, "config_groups");
  if (!groups || !groups->is_object()) return;
  for (const auto& [name, group] : groups->items()) {
    const json* weights = group.is_object() ? find(group, "weights") : nullptr;
    if (!weights || !weights->is_object()) continue;
    const std::string strategy = c.text(*weights, "strategy", "tensor"),
                      type = c.text(*weights, "type", "float");
    if (c.real_or(*weights, "num_bits", 8) != 8 || type != "float" ||
        (strategy != "tensor" && strategy != "channel" && strategy != "block"))
      throw Error(
          "{}: quantization_config: {}: weights of {} bits, type {}, strategy {} are not supported; 8-bit "
          "floats with "
          "a scale for each tensor, channel or block are",
          c.origin(), printable(name), c.real_or(*weights, "num_bits", 8), printable(type),
          printable(strategy));
    if (const json* block = find(*weights, "block_structure")) read_scale_block(c, *block, out);
  }
}

}  // namespace

HfConfig read_hf_config(const json& config, const std::string& origin) {
  if (!config.is_object()) throw Error("{}: it must hold one JSON object", origin);
  const Config c(config, origin);
  const Known& one = known(c);
  const std::string arch = one.arch;
  if (const std::string act = c.text(config, "hidden_act", "silu"); act != "silu" && act != "swish")
    throw Error("{}: hidden_act '{}' is not supported; silu is", origin, printable(act));
  HfConfig out{};
  out.meta = Metadata(origin);
  out.layers = c.count("num_hidden_layers");
  out.width = c.count("hidden_size");
  out.ff = c.count("intermediate_size");
  out.heads = c.count("num_attention_heads");
  out.kv_heads = c.count_or("num_key_value_heads", out.heads);
  out.vocab = c.count("vocab_size");
  if (out.heads == 0) throw Error("{}: 'num_attention_heads' is 0", origin);
  out.head_dim = c.count_or("head_dim", one.head_dim != 0 ? one.head_dim : out.width / out.heads);
  // hf_tensor_names() makes a list of all layers' tensors.
  constexpr uint64_t kMaxLayers = 8192;
  if (out.layers > kMaxLayers)
    throw Error("{}: 'num_hidden_layers' is {}; at most {} are supported", origin, out.layers, kMaxLayers);
  if (one.attention_bias) out.attention_bias = c.flag("attention_bias", false);
  out.qkv_bias = one.qkv_bias || out.attention_bias;
  if (one.mlp_bias) out.mlp_bias = c.flag("mlp_bias", false);
  out.qk_norm = one.qk_norm;
  out.tied = c.flag("tie_word_embeddings", false);
  out.tied_said = find(config, "tie_word_embeddings") != nullptr;
  out.scale_block[0] = out.scale_block[1] = 128;
  read_quantization(c, out);

  uint64_t context = c.count("max_position_embeddings");
  const auto key = [&](const char* name) { return arch + "." + name; };
  Metadata& meta = out.meta;
  meta.add("general.architecture", arch);
  meta.add(key("block_count"), out.layers);
  meta.add(key("embedding_length"), out.width);
  meta.add(key("feed_forward_length"), out.ff);
  meta.add(key("attention.head_count"), out.heads);
  meta.add(key("attention.head_count_kv"), out.kv_heads);
  meta.add(key("attention.key_length"), out.head_dim);
  meta.add(key("attention.value_length"), out.head_dim);
  meta.add(key("rope.dimension_count"), out.head_dim);
  meta.add(key("attention.layer_norm_rms_epsilon"), c.real_or(config, "rms_norm_eps", 1e-6));
  meta.add(key("vocab_size"), out.vocab);
  // Mistral's window is in every layer. Qwen's is in some, and only where it is switched on: up to its length
  // all layers see everything.
  // Null is none; a Mistral that does not say has the class's default.
  const bool mistral = one.name == std::string_view("MistralForCausalLM");
  const uint64_t window =
      c.count_or("sliding_window", mistral && !config.contains("sliding_window") ? 4096 : 0);
  if (mistral && window > 0) meta.add(key("attention.sliding_window"), window);
  if (arch != "llama" && window > 0 && window < context && c.flag("use_sliding_window", false) &&
      c.count_or("max_window_layers", 28) < out.layers) {
    log_warning(
        "{}: the context is limited to {} of {} tokens: beyond, some layers have a sliding window, which "
        "this program does not do for {}",
        origin, window, context, arch);
    context = window;
  }
  // GGUF's converters permute the rows of a Llama's q and k; here they lie as they were trained.
  if (arch == "llama") meta.add("apr.rope_pairs", std::string("halves"));
  read_rope(c, arch, out.head_dim, context, out);
  return out;
}

}  // namespace apr
