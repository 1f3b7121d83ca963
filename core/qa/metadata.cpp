// The gate on metadata: values that are legal, but that no model has. What is not legal stops the plan already.
// The ranges are those of published models (Llama 1 to 3, Mistral, Qwen 1.5 to 3, Yi, SmolLM, TinyLlama, OLMo),
// widened by an order of magnitude or two: a value outside of one is far likelier damage than a new model.
#include <fmt/format.h>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/plan/hyper.h"
#include "core/qa/gates.h"

namespace apr {

namespace {

struct Range {
  const char* key;  // below the architecture: "rope.freq_base"
  double value;
  double least, most;
  const char* why;
};

class Findings {
 public:
  explicit Findings(QaResult& result) : result_(result) {}

  void check(bool good, const std::string& problem) {
    ++judged_;
    if (!good) result_.details.push_back(problem);
  }
  void range(const std::string& arch, const Range& r) {
    check(r.value >= r.least && r.value <= r.most, fmt::format("{}.{} is {:g}; plausible is {:g} to {:g}: {}",
                                                               arch, r.key, r.value, r.least, r.most, r.why));
  }
  size_t judged() const { return judged_; }

 private:
  QaResult& result_;
  size_t judged_ = 0;
};

void check_hyper(const HyperParameters& h, Findings& found) {
  const auto range = [&](const char* key, double value, double least, double most, const char* why) {
    found.range(h.arch, {key, value, least, most, why});
  };
  range("attention.layer_norm_rms_epsilon", h.eps, 1e-7, 1e-4,
        "models have 1e-6 or 1e-5, and another value scales every small activation");
  range("rope.freq_base", h.rope.freq_base, 1e3, 1e9, "models have 1e4 to 1e8");
  range("rope.scaling.factor", h.rope.factor, 1, 128, "models have 1 to 64");
  range("block_count", static_cast<double>(h.layers.size()), 1, 512, "models have 1 to 126 layers");
  range("context_length", h.n_ctx_train, 16, 16e6, "models have 512 to 1e7 tokens");
  const LayerParameters& first = h.layers.front();
  range("attention.key_length", h.head_dim, 8, 512, "heads have 32 to 256 columns");
  range("attention.head_count_kv", double{static_cast<double>(first.n_heads)} / first.n_kv_heads, 1, 64,
        "1 to 16 heads share a key");
  const double width = static_cast<double>(first.n_heads) * h.head_dim / h.n_embd;
  range("attention.head_count", width, 0.125, 8,
        "heads times their columns, over embedding_length: models have 0.5 to 4");
  range("feed_forward_length", static_cast<double>(first.n_ff) / h.n_embd, 0.25, 32,
        "over embedding_length: models have 1 to 14");
  found.check(h.rope.dims >= 2, fmt::format("{}.rope.dimension_count is {}: nothing tells positions apart",
                                            h.arch, h.rope.dims));
}

// Ids that the tokenizer knows must have a row of the embedding, and tokens with a meaning must be such tokens.
void check_tokens(const Model& model, const Vocab& vocab, Findings& found) {
  const Tensor* table = model.find("token_embd.weight");
  if (table != nullptr)
    found.check(table->n() == static_cast<uint64_t>(vocab.size()),
                fmt::format("the tokenizer has {} tokens, but token_embd.weight has {} rows", vocab.size(),
                            table->n()));
  found.check(!vocab.add_bos || vocab.bos,
              "tokenizer.ggml.add_bos_token is true, but there is no bos_token_id");
  bool ends = false;
  for (const uint8_t eog : vocab.eog) ends = ends || eog != 0;
  found.check(ends, "no token ends generation: every answer runs to its length limit");
  // Files from before token types existed call every token normal.
  const bool typed = model.meta.has("tokenizer.ggml.token_type");
  const auto special = [&](const char* key, const std::optional<int32_t>& id) {
    if (!id || !typed) return;
    const auto i = static_cast<size_t>(*id);
    const TokenType type = vocab.type[i];
    found.check(type != TokenType::Normal && type != TokenType::Byte,
                fmt::format("tokenizer.ggml.{} is {}, which is the text '{}' and no control token", key, *id,
                            printable(vocab.text[i])));
  };
  special("bos_token_id", vocab.bos);
  special("eos_token_id", vocab.eos);
  special("eot_token_id", vocab.eot);
}

}  // namespace

QaResult gate_metadata(QaSubject& subject) {
  const Model& model = subject.model();
  QaResult result{QaVerdict::Pass, "implausible values", 0.0, 0.0, "", {}};
  Findings found(result);
  const HyperParameters hyper =
      read_hyper_parameters(model.meta, model.meta.get_string("general.architecture"));
  check_hyper(hyper, found);
  check_tokens(model, load_vocab(model.meta), found);
  result.value = static_cast<double>(result.details.size());
  if (result.details.empty()) {
    result.text = fmt::format("{} values judged; eps {:g}, rope base {:g}, context {}", found.judged(),
                              hyper.eps, hyper.rope.freq_base, hyper.n_ctx_train);
  } else {
    result.verdict = QaVerdict::Fail;
    result.text = result.details.front();
    result.details.erase(result.details.begin());
  }
  return result;
}

}  // namespace apr
