#include "core/hf/tokenizer_json.h"

#include <algorithm>
#include <unordered_map>

#include "core/base/log.h"
#include "core/hf/tokenizer_steps.h"
#include "core/text/pre_tokenizer.h"
#include "core/text/vocab.h"

namespace apr {

namespace {

using nlohmann::json;

bool is_byte_name(std::string_view text) {
  const auto hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F'); };
  return text.size() == 6 && text.starts_with("<0x") && hex(text[3]) && hex(text[4]) && text[5] == '>';
}

class Reader {
 public:
  Reader(const json& file, const std::string& origin, uint64_t n_vocab)
      : file_(file, origin + ": "), origin_(origin), n_vocab_(n_vocab) {}

  void run(Metadata& meta) {
    file_.only({"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer",
                "post_processor", "decoder", "model"});
    // Truncation and padding are for batches in training; a prompt is whole, and transformers switches both off too.
    steps_ = read_tokenizer_steps(file_);
    read_model();
    read_added_tokens();
    fill_holes();
    write(meta);
  }

 private:
  void read_model() {
    const JsonPart model = file_.part("model");
    model.only({"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
                "byte_fallback", "ignore_merges", "vocab", "merges"});
    const std::string type = model.part("type").text_or("BPE");
    if (type != "BPE")
      model.part("type").fail(fmt::format("'{}' is not supported, only BPE", printable(type)));
    const JsonPart dropout = model.part("dropout");
    if (!dropout.null() && dropout.json() != 0.0) dropout.fail("it is for training, not for use");
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
      if (!model.part(key).text_or("").empty()) model.part(key).fail("it is not supported");
    byte_fallback_ = model.part("byte_fallback").flag_or(false);
    fuse_unknown_ = model.part("fuse_unk").flag_or(false);
    ignore_merges_ = model.part("ignore_merges").flag_or(false);

    const JsonPart vocab = model.part("vocab");
    if (!vocab.json().is_object() || vocab.json().empty())
      vocab.fail("an object with tokens and their ids is needed");
    tokens_.resize(n_vocab_);
    types_.assign(n_vocab_, TokenType::Unused);
    for (const auto& [text, id] : vocab.json().items()) {
      if (!id.is_number_unsigned() || id.get<uint64_t>() >= n_vocab_)
        vocab.fail(fmt::format("token '{}' has id {}; the model's embedding has {} rows", printable(text),
                               printable(id.dump()), n_vocab_));
      const auto place = id.get<uint64_t>();
      if (types_[place] != TokenType::Unused)
        vocab.fail(
            fmt::format("'{}' and '{}' both have id {}", printable(tokens_[place]), printable(text), place));
      tokens_[place] = text;
      types_[place] =
          !steps_.byte_level && byte_fallback_ && is_byte_name(text) ? TokenType::Byte : TokenType::Normal;
      ids_.emplace(text, place);
    }
    read_merges(model.part("merges"));
    const JsonPart unknown = model.part("unk_token");
    if (unknown.null()) return;
    const auto found = ids_.find(unknown.text());
    if (found == ids_.end())
      unknown.fail(fmt::format("'{}' is not in the vocabulary", printable(unknown.text())));
    unknown_ = found->second;
    types_[*unknown_] = TokenType::Unknown;
  }

  // Two tokens each, as one text with a space between or as a list.
  void read_merges(const JsonPart& list) {
    const size_t n = list.size();
    scores_.assign(n_vocab_, -static_cast<double>(n));
    for (size_t i = 0; i < n; ++i) {
      const json& entry = list.json()[i];
      std::string line;
      if (entry.is_string()) {
        line = entry.get<std::string>();
      } else if (entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_string()) {
        line = entry[0].get<std::string>() + " " + entry[1].get<std::string>();
      }
      const size_t space = line.find(' ');
      const auto merged = space == std::string::npos || line.find(' ', space + 1) != std::string::npos
                              ? ids_.end()
                              : ids_.find(line.substr(0, space) + line.substr(space + 1));
      if (merged == ids_.end() || !ids_.contains(line.substr(0, space)) ||
          !ids_.contains(line.substr(space + 1)))
        list.element(i).fail(
            fmt::format("'{}': two tokens that make a third one are needed", printable(entry.dump())));
      // What readers that know scores only make of it: the order of the merges.
      scores_[merged->second] = std::max(scores_[merged->second], -static_cast<double>(i));
      merges_.push_back(std::move(line));
    }
  }

  void read_added_tokens() {
    const JsonPart list = file_.part("added_tokens");
    if (list.null()) return;
    for (size_t i = 0; i < list.size(); ++i) {
      const JsonPart token = list.element(i);
      token.only({"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
      const std::string text = token.part("content").text();
      const uint64_t id = token.part("id").count();
      if (text.empty()) token.part("content").fail("an empty text is not supported");
      if (token.part("single_word").flag_or(false)) token.part("single_word").fail("true is not supported");
      if (id >= n_vocab_) {
        log_warning("{}: token {} '{}' is left out: the model's embedding has {} rows", origin_, id,
                    printable(text), n_vocab_);
        continue;
      }
      const auto known = ids_.find(text);
      if (known != ids_.end() ? known->second != id : types_[id] != TokenType::Unused)
        token.fail(
            fmt::format("'{}' has id {}, which does not agree with the vocabulary", printable(text), id));
      // A token that is matched after a ▁ was put in front would be found at a text's beginning only.
      if (token.part("normalized").flag_or(false) && !steps_.byte_level && steps_.space_prefix == "pieces")
        log_warning("{}: token '{}' is marked as normalized; here it is found as it is written", origin_,
                    printable(text));
      tokens_[id] = text;
      ids_.emplace(text, id);
      const bool special = token.part("special").flag_or(false);
      if (id != unknown_) types_[id] = special ? TokenType::Control : TokenType::UserDefined;
      if (token.part("lstrip").flag_or(false)) lstrip_.push_back(id);
      if (token.part("rstrip").flag_or(false)) rstrip_.push_back(id);
    }
  }

  void fill_holes() {
    for (uint64_t id = 0; id < n_vocab_; ++id) {
      if (types_[id] != TokenType::Unused) continue;
      tokens_[id] = fmt::format("[PAD{}]", id);
      if (ids_.contains(tokens_[id])) tokens_[id] = fmt::format("[unused token {}]", id);
    }
  }

  uint64_t id_of(const std::string& text, const char* what) const {
    const auto found = ids_.find(text);
    if (found == ids_.end())
      file_.part("post_processor").fail(fmt::format("its {} '{}' is no token", what, printable(text)));
    return found->second;
  }

  void write(Metadata& meta) const {
    std::vector<int64_t> types;
    for (const TokenType type : types_) types.push_back(static_cast<int64_t>(type));
    meta.add("tokenizer.ggml.model", std::string(steps_.byte_level ? "gpt2" : "llama"));
    meta.add("tokenizer.ggml.tokens", MetaArray(tokens_));
    meta.add("tokenizer.ggml.token_type", MetaArray(types));
    if (steps_.byte_level) {
      write_pre_tokenizer(meta);
      meta.add("tokenizer.ggml.merges", MetaArray(merges_));
    } else {
      meta.add("tokenizer.ggml.pre", std::string("default"));
      meta.add("tokenizer.ggml.scores", MetaArray(scores_), MetaType::F32);
      meta.add(std::string(kSpmMergesKey), MetaArray(merges_));
      meta.add("tokenizer.ggml.add_space_prefix", !steps_.space_prefix.empty());
      if (steps_.space_splits) meta.add("apr.tokenizer.space_splits", true);
      if (fuse_unknown_) meta.add("apr.tokenizer.fuse_unknown", true);
    }
    if (!steps_.space_prefix.empty()) meta.add("apr.tokenizer.space_prefix", steps_.space_prefix);
    meta.add("apr.tokenizer.strip_first_space", steps_.strip_first_space);
    meta.add("apr.tokenizer.ignore_merges", ignore_merges_);
    meta.add("apr.tokenizer.normalizer", steps_.normalizer);
    if (!lstrip_.empty()) meta.add("apr.tokenizer.lstrip_token_ids", MetaArray(lstrip_));
    if (!rstrip_.empty()) meta.add("apr.tokenizer.rstrip_token_ids", MetaArray(rstrip_));
    if (unknown_) meta.add("tokenizer.ggml.unknown_token_id", *unknown_);
    if (steps_.bos) meta.add("tokenizer.ggml.bos_token_id", id_of(*steps_.bos, "first token"));
    if (steps_.eos) meta.add("tokenizer.ggml.eos_token_id", id_of(*steps_.eos, "last token"));
    meta.add("tokenizer.ggml.add_bos_token", steps_.bos.has_value());
    meta.add("tokenizer.ggml.add_eos_token", steps_.eos.has_value());
  }

  // By the name that others know where they cut the same words, else as this program's own, which others refuse.
  void write_pre_tokenizer(Metadata& meta) const {
    for (const PreTokenizerSpec& spec : pre_tokenizer_specs()) {
      if (spec.ignore_merges != ignore_merges_ || !steps_.space_prefix.empty()) continue;
      if (std::equal(spec.expressions.begin(), spec.expressions.end(), steps_.expressions.begin(),
                     steps_.expressions.end()))
        return meta.add("tokenizer.ggml.pre", std::string(spec.names[0]));
    }
    meta.add("tokenizer.ggml.pre", std::string(kOwnExpressions));
    meta.add("apr.tokenizer.expressions", MetaArray(steps_.expressions));
  }

  JsonPart file_;
  const std::string& origin_;
  uint64_t n_vocab_;
  TokenizerSteps steps_;
  std::vector<std::string> tokens_;
  std::vector<TokenType> types_;
  std::vector<double> scores_;
  std::vector<std::string> merges_;
  std::unordered_map<std::string, uint64_t> ids_;
  std::vector<uint64_t> lstrip_, rstrip_;
  std::optional<uint64_t> unknown_;
  bool byte_fallback_ = false, fuse_unknown_ = false, ignore_merges_ = false;
};

}  // namespace

void read_tokenizer_json(const json& file, const std::string& origin, uint64_t n_vocab, Metadata& meta) {
  Reader(file, origin, n_vocab).run(meta);
}

}  // namespace apr
