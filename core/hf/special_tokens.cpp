#include "core/hf/special_tokens.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "core/base/log.h"

namespace apr {

namespace {

class Writer {
 public:
  Writer(const HfTokenFiles& files, Metadata& meta)
      : files_(files), meta_(meta), tokens_(meta.get_strings("tokenizer.ggml.tokens")) {}

  void run() {
    add("tokenizer.ggml.bos_token_id", all("bos_token_id", "bos_token"));
    const std::vector<uint64_t> ends = all("eos_token_id", "eos_token");
    add("tokenizer.ggml.eos_token_id", ends);
    if (!ends.empty()) meta_.add("apr.tokenizer.eog_token_ids", MetaArray(ends));
    add("tokenizer.ggml.padding_token_id", all("pad_token_id", "pad_token"));
    check_flag("add_bos_token");
    check_flag("add_eos_token");
    if (const std::string source = chat_template(); !source.empty())
      meta_.add("tokenizer.chat_template", source);
  }

 private:
  void add(const char* key, const std::vector<uint64_t>& ids) {
    // The post-processor's token, where it has one, is in already.
    if (!ids.empty() && !meta_.has(key)) meta_.add(key, ids[0]);
  }

  // The tokenizer's own opinion comes first: of several ends it is the one of a turn.
  std::vector<uint64_t> all(const char* id_key, const char* text_key) const {
    std::vector<uint64_t> ids;
    const auto take = [&](uint64_t id) {
      if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
    };
    JsonPart text = files_.tokenizer.part(text_key);
    if (text.json().is_object()) text = text.part("content");
    if (!text.null()) {
      const auto found = std::find(tokens_.begin(), tokens_.end(), text.text());
      if (found == tokens_.end())
        log_warning("{}: '{}' is no token of the model's vocabulary: ignored", text.where(),
                    printable(text.text()));
      else
        take(static_cast<uint64_t>(found - tokens_.begin()));
    }
    for (const JsonPart& file : {files_.generation, files_.config}) {
      const JsonPart part = file.part(id_key);
      if (part.null()) continue;
      const bool list = part.json().is_array();
      for (size_t i = 0; i < (list ? part.size() : 1); ++i) {
        const JsonPart item = list ? part.element(i) : part;
        // Some files say -1 for "none".
        if (item.json().is_number_integer() && item.json().get<int64_t>() < 0) continue;
        const uint64_t id = item.count();
        if (id < tokens_.size()) {
          take(id);
        } else {
          log_warning("{}: token {} is not in the vocabulary of {}: ignored", item.where(), id,
                      tokens_.size());
        }
      }
    }
    return ids;
  }

  void check_flag(const char* key) const {
    const JsonPart flag = files_.tokenizer.part(key);
    const bool is = meta_.get_bool(std::string("tokenizer.ggml.") + key);
    if (!flag.null() && flag.flag_or(false) != is)
      log_warning("{} is {}, but tokenizer.json {} such a token: tokenizer.json is followed", flag.where(),
                  flag.flag_or(false), is ? "adds" : "does not add");
  }

  std::string chat_template() const {
    if (!files_.chat_template.empty()) return files_.chat_template;
    const JsonPart part = files_.tokenizer.part("chat_template");
    if (part.null()) return {};
    if (!part.json().is_array()) return part.text();
    // Several, by name.
    for (size_t i = 0; i < part.size(); ++i)
      if (part.element(i).part("name").text() == "default") return part.element(i).part("template").text();
    return {};
  }

  const HfTokenFiles& files_;
  Metadata& meta_;
  const std::vector<std::string> tokens_;
};

}  // namespace

void add_special_tokens(const HfTokenFiles& files, Metadata& meta) { Writer(files, meta).run(); }

}  // namespace apr
