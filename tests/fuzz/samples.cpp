#include "tests/fuzz/samples.h"

#include <apr/quant.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <stdexcept>

#include "core/dispatch/weight_quant_type.h"
#include "core/model/gguf_writer.h"
#include "tests/text/vocabs.h"

namespace apr_test {

namespace {

constexpr uint64_t kColumns = 256, kHead = 64, kHeads = 4, kKvHeads = 2;

class Sample {
 public:
  Sample(apr::Catalog& catalog, const std::string& arch, apr::Metadata vocab)
      : catalog_(catalog), meta_(std::move(vocab)), arch_(arch), random_(7) {
    meta_.add("general.architecture", arch);
    meta_.add("general.name", "sample " + arch);
    set("block_count", uint64_t{1});
    set("context_length", uint64_t{64});
    set("embedding_length", kColumns);
    set("feed_forward_length", kColumns);
    set("attention.head_count", kHeads);
    set("attention.head_count_kv", kKvHeads);
    set("attention.layer_norm_rms_epsilon", 1e-5);
    set("rope.freq_base", 10000.0);
    set("rope.dimension_count", kHead);
  }

  void set(const std::string& key, apr::MetaValue value) { meta_.set(arch_ + "." + key, std::move(value)); }
  void set_global(const std::string& key, apr::MetaValue value) { meta_.set(key, std::move(value)); }

  void add(const std::string& name, const std::string& format, uint64_t n, uint64_t k) {
    const apr_quant_format& quant = catalog_.format(format);
    std::vector<float> values(n * k);
    for (float& value : values) value = (static_cast<float>(random_() >> 40) / (1 << 24) - 0.5f) * 0.1f;
    if (n == 1) std::fill(values.begin(), values.end(), 1.0f);
    std::vector<std::byte> packed(n * (k / quant.block_elements) * quant.block_bytes);
    apr_error error{};
    error.struct_size = sizeof error;
    if (quant.quantize(values.data(), n, k, nullptr, packed.data(), &error) != APR_OK)
      throw std::logic_error(error.message);
    const auto qtype = apr::parse_qtype(format);
    if (!qtype) throw std::logic_error("no such format: " + format);
    tensors_.push_back(apr::gguf_tensor(name, *qtype, n == 1 ? std::vector{k} : std::vector{k, n}));
    data_.push_back(std::move(packed));
  }

  // formats: of token_embd, q, k, v, output projection, gate, up, down, and the head unless it is tied.
  void add_layers(const std::vector<std::string>& formats) {
    const uint64_t vocab = meta_.get_strings("tokenizer.ggml.tokens").size();
    add("token_embd.weight", formats[0], vocab, kColumns);
    add("output_norm.weight", "f32", 1, kColumns);
    if (formats.size() > 8) add("output.weight", formats[8], vocab, kColumns);
    add("blk.0.attn_norm.weight", "f32", 1, kColumns);
    add("blk.0.attn_q.weight", formats[1], kHead * kHeads, kColumns);
    add("blk.0.attn_k.weight", formats[2], kHead * kKvHeads, kColumns);
    add("blk.0.attn_v.weight", formats[3], kHead * kKvHeads, kColumns);
    add("blk.0.attn_output.weight", formats[4], kColumns, kHead * kHeads);
    add("blk.0.ffn_norm.weight", "f32", 1, kColumns);
    add("blk.0.ffn_gate.weight", formats[5], kColumns, kColumns);
    add("blk.0.ffn_up.weight", formats[6], kColumns, kColumns);
    add("blk.0.ffn_down.weight", formats[7], kColumns, kColumns);
  }

  SampleModel finish() const {
    std::vector<std::byte> file = apr::gguf_header(meta_, tensors_);
    const uint64_t alignment = meta_.get_uint_or("general.alignment", UINT32_MAX, 32);
    for (const std::vector<std::byte>& data : data_) {
      file.insert(file.end(), data.begin(), data.end());
      file.resize((file.size() + alignment - 1) / alignment * alignment);
    }
    return {arch_, std::move(file)};
  }

 private:
  apr::Catalog& catalog_;
  apr::Metadata meta_;
  std::string arch_;
  std::mt19937_64 random_;
  std::vector<apr::GgufTensor> tensors_;
  std::vector<std::vector<std::byte>> data_;
};

apr::Metadata spm() {
  return spm_vocab({{"\u2581", 1, -1},
                    {"h", 1, -2},
                    {"e", 1, -3},
                    {"l", 1, -4},
                    {"o", 1, -5},
                    {"he", 1, -6},
                    {"ll", 1, -7},
                    {"llo", 1, -8},
                    {"hello", 1, -9},
                    {"\u2581hello", 1, -10},
                    {"<|user|>", 4},
                    {"<end_of_turn>", 3}});
}

apr::Metadata bpe(const std::string& pre) {
  return bpe_vocab({{"h", "e"}, {"l", "l"}, {"he", "ll"}, {"hell", "o"}, {" ", "hello"}, {"1", "2"}},
                   {{"<|im_start|>", 3}, {"<|im_end|>", 3}, {"<|endoftext|>", 3}}, pre);
}

constexpr const char* kChatML =
    "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n'}}{% "
    "endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

}  // namespace

std::vector<SampleModel> sample_models(apr::Catalog& catalog) {
  std::vector<SampleModel> samples;
  Sample llama(catalog, "llama", spm());
  llama.set("rope.scaling.type", std::string("linear"));
  llama.set("rope.scaling.factor", 2.0);
  llama.set("attention.sliding_window", uint64_t{4});
  llama.add_layers({"q4_k", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q5_k", "q6_k", "q6_k"});
  llama.add("rope_freqs.weight", "f32", 1, kHead / 2);
  samples.push_back(llama.finish());

  Sample qwen2(catalog, "qwen2", bpe("qwen2"));
  qwen2.set_global("general.alignment", uint64_t{64});
  qwen2.set_global("tokenizer.chat_template", std::string(kChatML));
  qwen2.set_global("tokenizer.ggml.eos_token_id", uint64_t{263});
  qwen2.add_layers({"q8_0", "q2_k", "q3_k", "iq4_nl", "iq4_xs", "mxfp4", "f8_e4m3", "f8_e5m2"});
  for (const char* part : {"q", "k", "v"})
    qwen2.add(std::string("blk.0.attn_") + part + ".bias", "f32", 1,
              part[0] == 'q' ? kHead * kHeads : kHead * kKvHeads);
  samples.push_back(qwen2.finish());

  Sample qwen3(catalog, "qwen3", bpe("llama-bpe"));
  qwen3.set("attention.key_length", kHead);
  qwen3.set("attention.value_length", kHead);
  qwen3.set("rope.scaling.type", std::string("yarn"));
  qwen3.set("rope.scaling.factor", 4.0);
  qwen3.set("rope.scaling.original_context_length", uint64_t{16});
  qwen3.add_layers({"f32", "f16", "bf16", "f32", "f16", "q4_k", "q4_k", "q6_k", "q5_k"});
  qwen3.add("blk.0.attn_q_norm.weight", "f32", 1, kHead);
  qwen3.add("blk.0.attn_k_norm.weight", "f16", 1, kHead);
  samples.push_back(qwen3.finish());
  return samples;
}

}  // namespace apr_test
