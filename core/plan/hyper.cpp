#include "core/plan/hyper.h"

#include <array>
#include <cmath>

#include "core/base/error.h"
#include "core/base/format.h"

namespace apr {

namespace {

// Larger than any model's, small enough that products of two fit 64 bits and a hostile count allocates
// little.
constexpr uint64_t kMaxLayers = 8192;
constexpr uint64_t kMaxWidth = 1 << 24;
constexpr uint64_t kMaxHeads = 1 << 16;
constexpr uint64_t kMaxContext = INT32_MAX;  // positions are int32 in the waist
// Factors outside this range are damage, and their products leave the range of floats.
constexpr double kMaxFactor = 1e12;

// Keys that would change the computation in ways that no architecture here implements, with the value that
// means "not used". Any other value is an error: to ignore one is to compute another model.
struct ForeignKey {
  std::string_view key;
  double neutral;
};
constexpr std::array kForeignKeys = {
    ForeignKey{"expert_count", 0},
    ForeignKey{"attention.clamp_kqv", 0},
    ForeignKey{"attention.max_alibi_bias", 0},
    ForeignKey{"attention.scale", 0},
    ForeignKey{"attn_logit_softcapping", 0},
    ForeignKey{"final_logit_softcapping", 0},
    ForeignKey{"logit_scale", 1},
    ForeignKey{"residual_scale", 1},
    ForeignKey{"embedding_scale", 1},
    ForeignKey{"attention.sliding_window_pattern", 0},
    ForeignKey{"rope.scaling.yarn_attn_factor", 1},
};

class Reader {
 public:
  Reader(const Metadata& meta, const std::string& arch) : meta_(meta), arch_(arch) {}

  std::string key(std::string_view name) const { return fmt::format("{}.{}", arch_, name); }

  [[noreturn]] void fail(std::string_view name, const std::string& what) const {
    throw Error("{}: key '{}' {}", meta_.origin(), key(name), what);
  }

  uint32_t count(std::string_view name, uint64_t max) const {
    const uint64_t value = meta_.get_uint(key(name), max);
    if (value == 0) fail(name, "is 0");
    return static_cast<uint32_t>(value);
  }
  uint32_t count_or(std::string_view name, uint64_t max, uint64_t fallback) const {
    return meta_.has(key(name)) ? count(name, max) : static_cast<uint32_t>(fallback);
  }
  double positive(std::string_view name, double fallback) const {
    const double value = meta_.get_float_or(key(name), fallback);
    if (!(value >= 1 / kMaxFactor && value <= kMaxFactor)) {
      fail(name, fmt::format("is {}; it must be a positive number ({:g} to {:g})", value, 1 / kMaxFactor,
                             kMaxFactor));
    }
    return value;
  }
  double not_negative(std::string_view name, double fallback) const {
    return meta_.get_float_or(key(name), fallback) == 0 ? 0 : positive(name, fallback);
  }

  // One number for all layers, or an array with one for each.
  std::vector<uint32_t> per_layer(std::string_view name, uint64_t max, size_t layers) const {
    const MetaValue* value = meta_.find(key(name));
    if (!value || !std::holds_alternative<MetaArray>(*value))
      return std::vector<uint32_t>(layers, count(name, max));
    const std::vector<int64_t> numbers = meta_.get_ints(key(name));
    if (numbers.size() != layers)
      fail(name, fmt::format("has {} numbers for {} layers", numbers.size(), layers));
    std::vector<uint32_t> result;
    for (size_t i = 0; i < layers; ++i) {
      if (numbers[i] <= 0 || static_cast<uint64_t>(numbers[i]) > max) {
        fail(name, fmt::format("is {} for layer {}; 1 to {} are supported", numbers[i], i, max));
      }
      result.push_back(static_cast<uint32_t>(numbers[i]));
    }
    return result;
  }

  void refuse_foreign_keys() const {
    for (const ForeignKey& foreign : kForeignKeys) {
      const MetaValue* value = meta_.find(key(foreign.key));
      if (!value) continue;
      if (std::holds_alternative<MetaArray>(*value))
        fail(foreign.key, "is a list; this architecture has no such feature here");
      const double number = meta_.get_float(key(foreign.key));
      if (number == foreign.neutral || number == 0) continue;
      fail(
          foreign.key,
          fmt::format("is {}, and this program has no such feature for architecture '{}'; to ignore it would "
                      "compute another model",
                      number, arch_));
    }
  }

  RopeScaling scaling_type() const {
    const auto text = meta_.find_string(key("rope.scaling.type"));
    // Files from before the key existed give the linear factor alone.
    if (!text) return RopeScaling::Linear;
    if (*text == "none") return RopeScaling::None;
    if (*text == "linear") return RopeScaling::Linear;
    if (*text == "yarn") return RopeScaling::Yarn;
    fail("rope.scaling.type", fmt::format("is '{}'; known are none, linear and yarn", printable(*text)));
  }

  RopeParameters rope(uint32_t head_dim, uint32_t n_ctx_train) const {
    RopeParameters rope;
    rope.dims = count_or("rope.dimension_count", kMaxWidth, head_dim);
    if (rope.dims % 2 != 0 || rope.dims > head_dim) {
      fail("rope.dimension_count",
           fmt::format("is {}; it must be even and at most the head size, {}", rope.dims, head_dim));
    }
    rope.freq_base = positive("rope.freq_base", 10000.0);
    if (rope.freq_base <= 1)
      fail("rope.freq_base", fmt::format("is {}; it must be greater than 1", rope.freq_base));
    rope.scaling = scaling_type();
    const bool has_factor = meta_.has(key("rope.scaling.factor"));
    rope.factor = has_factor ? not_negative("rope.scaling.factor", 0) : not_negative("rope.scale_linear", 0);
    // 0 is what some writers put for "no scaling".
    if (rope.factor == 0 || rope.scaling == RopeScaling::None) rope.factor = 1;
    rope.original_context = count_or("rope.scaling.original_context_length", kMaxContext, n_ctx_train);
    rope.attention_factor = positive("rope.scaling.attn_factor", 1.0);
    rope.yarn_extrapolation = not_negative("rope.scaling.yarn_ext_factor", 1.0);
    rope.yarn_beta_fast = positive("rope.scaling.yarn_beta_fast", 32.0);
    rope.yarn_beta_slow = positive("rope.scaling.yarn_beta_slow", 1.0);
    rope.yarn_log_multiplier = not_negative("rope.scaling.yarn_log_multiplier", 0.0);
    if (rope.scaling == RopeScaling::Yarn && !has_factor) {
      fail("rope.scaling.factor", "is missing, but rope.scaling.type is yarn");
    }
    return rope;
  }

 private:
  const Metadata& meta_;
  const std::string& arch_;
};

}  // namespace

HyperParameters read_hyper_parameters(const Metadata& meta, const std::string& arch) {
  const Reader read(meta, arch);
  read.refuse_foreign_keys();
  HyperParameters hyper;
  hyper.arch = arch;
  const uint32_t n_layers = read.count("block_count", kMaxLayers);
  hyper.n_ctx_train = read.count("context_length", kMaxContext);
  hyper.n_embd = read.count("embedding_length", kMaxWidth);
  const double eps = meta.get_float(read.key("attention.layer_norm_rms_epsilon"));
  if (!std::isfinite(eps) || eps < 0 || eps >= 1) {
    read.fail("attention.layer_norm_rms_epsilon",
              fmt::format("is {}; a small positive number is expected", eps));
  }
  hyper.eps = static_cast<float>(eps);
  hyper.window =
      static_cast<uint32_t>(meta.get_uint_or(read.key("attention.sliding_window"), kMaxContext, 0));

  const std::vector<uint32_t> heads = read.per_layer("attention.head_count", kMaxHeads, n_layers);
  const std::vector<uint32_t> kv_heads = meta.has(read.key("attention.head_count_kv"))
                                             ? read.per_layer("attention.head_count_kv", kMaxHeads, n_layers)
                                             : heads;
  const std::vector<uint32_t> ff = read.per_layer("feed_forward_length", kMaxWidth, n_layers);
  for (uint32_t i = 0; i < n_layers; ++i) {
    if (heads[i] % kv_heads[i] != 0) {
      read.fail("attention.head_count_kv",
                fmt::format("is {} in layer {}; it does not divide the {} heads", kv_heads[i], i, heads[i]));
    }
    hyper.layers.push_back({heads[i], kv_heads[i], ff[i]});
  }

  // Without key_length a head is embedding_length / head_count columns; that must come out even.
  const bool has_key_length = meta.has(read.key("attention.key_length"));
  if (!has_key_length && hyper.n_embd % heads[0] != 0) {
    read.fail("attention.head_count",
              fmt::format("is {}; it does not divide embedding_length {} and there is no "
                          "attention.key_length",
                          heads[0], hyper.n_embd));
  }
  hyper.head_dim = read.count_or("attention.key_length", kMaxWidth, hyper.n_embd / heads[0]);
  const uint32_t value_length = read.count_or("attention.value_length", kMaxWidth, hyper.head_dim);
  if (value_length != hyper.head_dim) {
    read.fail("attention.value_length",
              fmt::format("is {}, but keys have {} columns a head; heads of two sizes are not "
                          "supported",
                          value_length, hyper.head_dim));
  }
  for (const LayerParameters& layer : hyper.layers) {
    if (uint64_t{layer.n_heads} * hyper.head_dim > kMaxWidth) {
      read.fail("attention.head_count",
                fmt::format("is {}; with {} columns a head that is more than {} columns", layer.n_heads,
                            hyper.head_dim, kMaxWidth));
    }
  }
  hyper.rope = read.rope(hyper.head_dim, hyper.n_ctx_train);
  return hyper;
}

}  // namespace apr
