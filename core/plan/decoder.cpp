#include "core/plan/decoder.h"

#include "core/base/error.h"
#include "core/plan/rope.h"

namespace apr {

namespace {

class Decoder {
 public:
  Decoder(PlanBuilder& builder, const HyperParameters& hyper, const DecoderTraits& traits)
      : build_(builder), hyper_(hyper), traits_(traits), embd_{1, hyper.n_embd} {}

  std::unique_ptr<Plan> run() {
    const uint64_t n_vocab = vocabulary();
    const int32_t table = build_.weight({kNone, "token_embd"}, n_vocab, hyper_.n_embd);
    make_rope();
    int32_t x = build_.embed({kNone, "embed"}, table);
    for (size_t i = 0; i < hyper_.layers.size(); ++i) x = layer(static_cast<int32_t>(i), hyper_.layers[i], x);
    build_.begin_head();
    const int32_t norm = build_.rms_norm(
        {kNone, "output_norm"}, x, build_.vector("output_norm.weight", hyper_.n_embd), embd_, hyper_.eps);
    const int32_t head = build_.head(table, n_vocab, hyper_.n_embd);
    const int32_t logits =
        build_.linear({kNone, "logits"}, norm, head, build_.vector_if_present("output.bias", n_vocab));
    return build_.finish(hyper_.n_ctx_train, logits);
  }

 private:
  // The embedding's rows are the vocabulary; the key, where there is one, must agree.
  uint64_t vocabulary() const {
    const Metadata& meta = build_.model().meta;
    const uint64_t rows = build_.rows_of("token_embd.weight");
    const std::string key = hyper_.arch + ".vocab_size";
    const uint64_t said = meta.get_uint_or(key, UINT32_MAX, rows);
    if (rows > INT32_MAX)
      throw Error("{}: tensor 'token_embd.weight' has {} rows, too many", meta.origin(), rows);
    if (said == rows) return rows;
    throw Error("{}: key '{}' is {}, but tensor 'token_embd.weight' has {} rows", meta.origin(), key, said,
                rows);
  }

  void make_rope() {
    const uint32_t pairs = hyper_.rope.dims / 2;
    const int32_t factors =
        traits_.rope_factors ? build_.vector_if_present("rope_freqs.weight", pairs) : kNone;
    std::vector<float> divisors;
    if (factors != kNone) divisors = build_.floats(factors);
    for (float divisor : divisors) {
      if (divisor <= 0) {
        throw Error(
            "{}: tensor 'rope_freqs.weight' holds {}; frequencies are divided by it, so it must be positive",
            build_.model().meta.origin(), divisor);
      }
    }
    RopeTable table = rope_table(hyper_.rope, divisors);
    rope_ = {rope_kind(), hyper_.rope.dims,
             build_.own_vector("rope.inverse_frequencies", std::move(table.inverse_frequencies)),
             table.scale};
  }

  // Hugging Face's files keep the rows as they were trained, in halves, also where GGUF's converters permute them.
  apr_rope_kind rope_kind() const {
    const Metadata& meta = build_.model().meta;
    const auto pairs = meta.find_string("apr.rope_pairs");
    if (!pairs) return traits_.rope;
    if (*pairs == "halves") return APR_ROPE_HALVES;
    if (*pairs == "adjacent") return APR_ROPE_ADJACENT;
    throw Error("{}: key 'apr.rope_pairs' is '{}'; known are halves and adjacent", meta.origin(), *pairs);
  }

  int32_t norm(Stage stage, int32_t in, HeadShape heads) {
    return build_.rms_norm(stage, in, build_.vector(stage_name(stage) + ".weight", heads.head_dim), heads,
                           hyper_.eps);
  }

  int32_t linear(Stage stage, int32_t in, uint64_t n, uint64_t k, bool bias_required = false) {
    const std::string bias = stage_name(stage) + ".bias";
    const int32_t weight = build_.weight(stage, n, k);
    return build_.linear(stage, in, weight,
                         bias_required ? build_.vector(bias, n) : build_.vector_if_present(bias, n));
  }

  int32_t layer(int32_t i, const LayerParameters& shape, int32_t x) {
    const int32_t after_attention = build_.add({i, "attn_residual"}, x, attention(i, shape, x));
    return build_.add({i, "ffn_residual"}, after_attention, feed_forward(i, shape, after_attention));
  }

  int32_t attention(int32_t i, const LayerParameters& shape, int32_t x) {
    const HeadShape q_heads = {shape.n_heads, hyper_.head_dim},
                    kv_heads = {shape.n_kv_heads, hyper_.head_dim};
    const uint64_t q_width = uint64_t{shape.n_heads} * hyper_.head_dim,
                   kv_width = uint64_t{shape.n_kv_heads} * hyper_.head_dim;
    const int32_t in = norm({i, "attn_norm"}, x, embd_);
    int32_t q = linear({i, "attn_q"}, in, q_width, hyper_.n_embd, traits_.qkv_bias_required);
    int32_t k = linear({i, "attn_k"}, in, kv_width, hyper_.n_embd, traits_.qkv_bias_required);
    const int32_t v = linear({i, "attn_v"}, in, kv_width, hyper_.n_embd, traits_.qkv_bias_required);
    if (traits_.qk_norm) {
      q = norm({i, "attn_q_norm"}, q, q_heads);
      k = norm({i, "attn_k_norm"}, k, kv_heads);
    }
    q = build_.rope({i, "attn_q_rope"}, q, q_heads, rope_);
    k = build_.rope({i, "attn_k_rope"}, k, kv_heads, rope_);
    const uint32_t window = traits_.sliding_window ? hyper_.window : 0;
    const int32_t out = build_.attention({i, "attn_out"}, q, k, v, q_heads, shape.n_kv_heads, window);
    return linear({i, "attn_output"}, out, hyper_.n_embd, q_width);
  }

  int32_t feed_forward(int32_t i, const LayerParameters& shape, int32_t x) {
    const int32_t in = norm({i, "ffn_norm"}, x, embd_);
    const int32_t gate = linear({i, "ffn_gate"}, in, shape.n_ff, hyper_.n_embd);
    const int32_t up = linear({i, "ffn_up"}, in, shape.n_ff, hyper_.n_embd);
    return linear({i, "ffn_down"}, build_.swiglu({i, "ffn_act"}, gate, up), hyper_.n_embd, shape.n_ff);
  }

  PlanBuilder& build_;
  const HyperParameters& hyper_;
  const DecoderTraits& traits_;
  HeadShape embd_;
  RopeShape rope_{};
};

}  // namespace

std::unique_ptr<Plan> build_decoder(PlanBuilder& builder, const HyperParameters& hyper,
                                    const DecoderTraits& traits) {
  return Decoder(builder, hyper, traits).run();
}

}  // namespace apr
