#include "core/hf/tokenizer_steps.h"

#include <string_view>

#include "core/hf/expressions.h"
#include "core/text/pre_tokenizer.h"

namespace apr {

namespace {

constexpr const char* kSpace = "\xE2\x96\x81";  // ▁, U+2581

// A part or, of a Sequence, its parts.
std::vector<JsonPart> sequence(const JsonPart& part, const char* list) {
  if (part.null()) return {};
  if (part.part("type").text() != "Sequence") return {part};
  part.only({"type", list});
  std::vector<JsonPart> out;
  const JsonPart parts = part.part(list);
  for (size_t i = 0; i < parts.size(); ++i) out.push_back(parts.element(i));
  return out;
}

[[noreturn]] void unknown_type(const JsonPart& part) {
  part.fail(fmt::format("type '{}' is not understood by this program", printable(part.part("type").text())));
}

void demand(const JsonPart& part, const char* key, const std::string& wanted) {
  const std::string value = part.part(key).text();
  if (value != wanted)
    part.part(key).fail(fmt::format("'{}' is not supported, only '{}'", printable(value), wanted));
}

// {"String": " "}
void demand_pattern(const JsonPart& part, const std::string& wanted) {
  part.part("pattern").only({"String"});
  demand(part.part("pattern"), "String", wanted);
}

class Reader {
 public:
  explicit Reader(const JsonPart& file) : file_(file) {}

  TokenizerSteps run() {
    for (const JsonPart& part : sequence(file_.part("normalizer"), "normalizers")) normalizer(part);
    pre_tokenizers();
    if (steps_.byte_level && (prepends_ || replaces_))
      file_.part("normalizer").fail("▁ for spaces together with a ByteLevel pre-tokenizer is not supported");
    if (!steps_.byte_level && !replaces_)
      file_.part("pre_tokenizer")
          .fail("neither ByteLevel nor ▁ for spaces: such tokenizers are not supported");
    if (prepends_) steps_.space_prefix = "pieces";
    for (const JsonPart& part : sequence(file_.part("post_processor"), "processors")) post_processor(part);
    decoders();
    return std::move(steps_);
  }

 private:
  void normalizer(const JsonPart& part) {
    const std::string type = part.part("type").text();
    if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") {
      part.only({"type"});
      if (steps_.normalizer != "none" || prepends_ || replaces_)
        part.fail("a second normal form, or one after ▁, is not supported");
      for (const char c : type) steps_.normalizer += static_cast<char>(c | 0x20);
      steps_.normalizer.erase(0, 4);
    } else if (type == "Prepend") {
      part.only({"type", "prepend"});
      demand(part, "prepend", kSpace);
      prepends_ = true;
    } else if (type == "Replace") {
      part.only({"type", "pattern", "content"});
      demand_pattern(part, " ");
      demand(part, "content", kSpace);
      replaces_ = true;
    } else {
      unknown_type(part);
    }
  }

  void pre_tokenizers() {
    const std::vector<JsonPart> parts = sequence(file_.part("pre_tokenizer"), "pretokenizers");
    for (size_t i = 0; i < parts.size(); ++i) {
      const JsonPart& part = parts[i];
      const std::string type = part.part("type").text();
      if (steps_.byte_level) part.fail("after ByteLevel nothing is supported");
      if (type == "Split") {
        split(part);
      } else if (type == "Digits") {
        part.only({"type", "individual_digits"});
        steps_.expressions.push_back(part.part("individual_digits").flag_or(false) ? R"(\p{N})"
                                                                                   : R"(\p{N}+)");
      } else if (type == "ByteLevel") {
        part.only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
        steps_.byte_level = true;
        if (part.part("add_prefix_space").flag_or(true)) {
          if (i > 0) part.part("add_prefix_space").fail("true is supported in the first pre-tokenizer only");
          steps_.space_prefix = "pieces_once";
        }
        if (part.part("use_regex").flag_or(true))
          steps_.expressions.emplace_back(find_pre_tokenizer("gpt-2")->expressions[0]);
      } else if (type == "Metaspace") {
        if (parts.size() > 1) part.fail("Metaspace among other pre-tokenizers is not supported");
        metaspace(part);
      } else {
        unknown_type(part);
      }
    }
    if (!steps_.byte_level && !steps_.expressions.empty())
      file_.part("pre_tokenizer").fail("expressions without ByteLevel at the end are not supported");
  }

  void split(const JsonPart& part) {
    part.only({"type", "pattern", "behavior", "invert"});
    demand(part, "behavior", "Isolated");
    if (part.part("invert").flag_or(false)) part.part("invert").fail("true is not supported");
    const JsonPart pattern = part.part("pattern");
    pattern.only({"Regex", "String"});
    steps_.expressions.push_back(pattern.part("Regex").null()
                                     ? pcre_literal(pattern.part("String").text())
                                     : pcre_of_oniguruma(pattern.part("Regex").text(), pattern.where()));
  }

  void metaspace(const JsonPart& part) {
    part.only({"type", "replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep"});
    demand(part, "replacement", kSpace);
    // Older files have a flag instead of a scheme.
    const bool flag = part.part("add_prefix_space").flag_or(true);
    const std::string scheme = part.part("prepend_scheme").text_or(flag ? "always" : "never");
    if (scheme == "always") {
      steps_.space_prefix = "pieces_once";
    } else if (scheme == "first") {
      steps_.space_prefix = "text_once";
    } else if (scheme != "never") {
      part.part("prepend_scheme")
          .fail(fmt::format("'{}' is not understood by this program", printable(scheme)));
    }
    if (prepends_) part.fail("with a normaliser that prepends ▁ too it is not supported");
    steps_.space_splits = part.part("split").flag_or(true);
    replaces_ = true;
  }

  void post_processor(const JsonPart& part) {
    const std::string type = part.part("type").text();
    // It moves offsets, not tokens.
    if (type == "ByteLevel") return part.only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
    if (type != "TemplateProcessing") unknown_type(part);
    part.only({"type", "single", "pair", "special_tokens"});  // pair: of two texts, which nobody encodes here
    const JsonPart single = part.part("single");
    bool after_text = false;
    for (size_t i = 0; i < single.size(); ++i) {
      const JsonPart item = single.element(i);
      item.only({"SpecialToken", "Sequence"});
      const JsonPart token = item.part("SpecialToken");
      if (token.null()) {
        if (after_text) item.fail("the text twice is not supported");
        after_text = true;
        continue;
      }
      std::optional<std::string>& place = after_text ? steps_.eos : steps_.bos;
      if (place) token.fail("more than one token on a side of the text is not supported");
      place = special_token(part, token.part("id"));
    }
    if (!after_text) single.fail("the text is not in it");
  }

  std::string special_token(const JsonPart& processor, const JsonPart& id) {
    const JsonPart entry = processor.part("special_tokens").part(id.text().c_str());
    if (entry.null()) id.fail(fmt::format("'{}' is not among its special_tokens", printable(id.text())));
    const JsonPart tokens = entry.part("tokens");
    if (tokens.size() != 1) tokens.fail("one token is needed");
    return tokens.element(0).text();
  }

  void decoders() {
    const JsonPart decoder = file_.part("decoder");
    const std::vector<JsonPart> parts = sequence(decoder, "decoders");
    bool byte_level = false, spaces = false;
    for (const JsonPart& part : parts) {
      const std::string type = part.part("type").text();
      if (type == "ByteLevel") {
        part.only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
        byte_level = true;
      } else if (type == "Metaspace") {
        part.only({"type", "replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep"});
        demand(part, "replacement", kSpace);
        spaces = true;
        steps_.strip_first_space = part.part("add_prefix_space").flag_or(true) &&
                                   part.part("prepend_scheme").text_or("always") != "never";
      } else if (type == "Replace") {
        part.only({"type", "pattern", "content"});
        demand_pattern(part, kSpace);
        demand(part, "content", " ");
        spaces = true;
      } else if (type == "Strip") {
        part.only({"type", "content", "start", "stop"});
        demand(part, "content", " ");
        if (part.part("start").count() > 1 || part.part("stop").count() != 0)
          part.fail("only one character at the start is supported");
        steps_.strip_first_space = part.part("start").count() == 1;
      } else if (type == "ByteFallback" || type == "Fuse") {
        part.only({"type"});  // always so here
      } else {
        unknown_type(part);
      }
    }
    // Without a decoder, tokens are joined as they are written: nobody means that.
    if (!parts.empty() && (steps_.byte_level ? !byte_level || spaces : byte_level || !spaces))
      decoder.fail("it does not undo what the pre-tokenizer does");
    if (parts.empty()) steps_.strip_first_space = !steps_.byte_level && !steps_.space_prefix.empty();
  }

  const JsonPart& file_;
  bool prepends_ = false, replaces_ = false;  // ▁
  TokenizerSteps steps_;
};

}  // namespace

TokenizerSteps read_tokenizer_steps(const JsonPart& file) { return Reader(file).run(); }

}  // namespace apr
