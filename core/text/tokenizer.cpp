#include "core/text/tokenizer.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/text/bpe.h"
#include "core/text/char_bpe.h"
#include "core/text/normalize.h"
#include "core/text/pre_tokenizer.h"
#include "core/text/space_mark.h"
#include "core/text/spm.h"

namespace apr {

namespace {

constexpr size_t kMaxText = size_t{1} << 30;  // bytes; symbols are 32-bit and a space becomes three bytes

// The end of the valid UTF-8 that begins at from.
size_t valid_until(std::string_view text, size_t from) {
  while (from < text.size()) {
    // ASCII is most of most texts.
    if (static_cast<uint8_t>(text[from]) < 0x80) {
      ++from;
      continue;
    }
    const size_t length = utf8_length(text.substr(from));
    if (length == 0) break;
    from += length;
  }
  return from;
}

std::string with_space_prefix(const Vocab& vocab, std::string_view text, bool at_start) {
  const SpacePrefix how = vocab.space_prefix;
  bool wanted = false;
  switch (how) {
    case SpacePrefix::None:
      break;
    case SpacePrefix::Pieces:
      wanted = true;
      break;
    case SpacePrefix::PiecesOnce:
    case SpacePrefix::TextOnce:
      wanted = (at_start || how == SpacePrefix::PiecesOnce) && !text.starts_with(' ') &&
               !(vocab.kind == VocabKind::Spm && text.starts_with(kSpaceMark));
      break;
  }
  std::string out;
  out.reserve(text.size() + 1);
  if (wanted) out += ' ';
  return out += text;
}

class BpeTokenizer final : public Tokenizer {
 public:
  BpeTokenizer(Vocab vocab, const std::vector<std::string>& merges)
      : Tokenizer(std::move(vocab)), pre_(vocab_.expressions), bpe_(vocab_, merges, vocab_.warnings) {}

 protected:
  void encode_text(std::string_view given, bool at_start, std::vector<int32_t>& out) const override {
    const std::string prefixed = with_space_prefix(vocab_, given, at_start);
    const std::string_view text = prefixed;
    BpeEncoder::Scratch scratch;
    std::vector<size_t> ends;
    size_t at = 0;
    while (at < text.size()) {
      const std::string_view valid = text.substr(at, valid_until(text, at) - at);
      pre_.split(valid, ends);
      size_t begin = 0;
      for (const size_t end : ends) {
        bpe_.encode(valid.substr(begin, end - begin), scratch, out);
        begin = end;
      }
      at += valid.size();
      // Expressions are defined on characters only: a run of other bytes is a word of its own.
      begin = at;
      while (at < text.size() && utf8_length(text.substr(at)) == 0) ++at;
      bpe_.encode(text.substr(begin, at - begin), scratch, out);
    }
  }

 private:
  PreTokenizer pre_;
  BpeEncoder bpe_;
};

class SpmTokenizer final : public Tokenizer {
 public:
  explicit SpmTokenizer(Vocab vocab) : Tokenizer(std::move(vocab)), spm_(vocab_) {}

 protected:
  void encode_text(std::string_view text, bool at_start, std::vector<int32_t>& out) const override {
    SpmEncoder::Scratch scratch;
    spm_.encode(with_space_prefix(vocab_, text, at_start), scratch, out);
  }

 private:
  SpmEncoder spm_;
};

class CharBpeTokenizer final : public Tokenizer {
 public:
  CharBpeTokenizer(Vocab vocab, const std::vector<std::string>& merges)
      : Tokenizer(std::move(vocab)), bpe_(vocab_, merges) {}

 protected:
  void encode_text(std::string_view text, bool at_start, std::vector<int32_t>& out) const override {
    MergeScratch scratch;
    std::string escaped;
    for (const char c : with_space_prefix(vocab_, text, at_start)) {
      if (c == ' ') {
        escaped += kSpaceMark;
      } else {
        escaped += c;
      }
    }
    bpe_.encode(escaped, scratch, out);
  }

 private:
  CharBpeEncoder bpe_;
};

// The length of the white space (Unicode's White_Space) that text begins with.
size_t leading_space(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const std::string_view rest = text.substr(at);
    const char c = rest.front();
    if (c == ' ' || (c >= '\t' && c <= '\r')) {
      at += 1;
    } else if (rest.starts_with("\xC2\x85") || rest.starts_with("\xC2\xA0")) {
      at += 2;
    } else if (rest.starts_with("\xE1\x9A\x80") || rest.starts_with("\xE2\x81\x9F") ||
               rest.starts_with("\xE3\x80\x80") ||
               (rest.starts_with("\xE2\x80") && rest.size() > 2 &&
                (static_cast<uint8_t>(rest[2]) <= 0x8A || rest[2] == '\xA8' || rest[2] == '\xA9' ||
                 rest[2] == '\xAF'))) {
      at += 3;
    } else {
      break;
    }
  }
  return at;
}

// text without the white space that it ends with.
std::string_view without_trailing_space(std::string_view text) {
  for (size_t end = text.size(); end > 0;) {
    // Back over one character.
    size_t begin = end - 1;
    while (begin > 0 && end - begin < 3 && (static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) --begin;
    if (leading_space(text.substr(begin, end - begin)) != end - begin) return text.substr(0, end);
    end = begin;
  }
  return {};
}

// Runs that are no valid UTF-8 stay as they are.
std::string normalized(std::string_view text, Normalizer how) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t end = valid_until(text, at);
    out += normalize(text.substr(at, end - at), how);
    for (at = end; at < text.size() && utf8_length(text.substr(at)) == 0; ++at) out += text[at];
  }
  return out;
}

}  // namespace

Tokenizer::Tokenizer(Vocab vocab) : vocab_(std::move(vocab)) {
  for (int32_t id = 0; id < vocab_.size(); ++id) {
    const std::string& text = vocab_.text[static_cast<size_t>(id)];
    if (text.empty()) continue;
    switch (vocab_.type[static_cast<size_t>(id)]) {
      case TokenType::Control:
      case TokenType::Unknown:
        special_.add(text, id);
        break;
      case TokenType::UserDefined:
        user_defined_.add(text, id);
        break;
      case TokenType::Undefined:
      case TokenType::Normal:
      case TokenType::Unused:
      case TokenType::Byte:
        break;
    }
  }
}

size_t Tokenizer::checked(int32_t id) const {
  if (id >= 0 && id < vocab_.size()) return static_cast<size_t>(id);
  throw Error("{}: there is no token {}: ids are 0 to {}", vocab_.origin, id, vocab_.size() - 1);
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  const TextPiece piece{std::string(text), options.parse_special};
  return encode(std::span(&piece, 1), options);
}

std::vector<int32_t> Tokenizer::encode(std::span<const TextPiece> pieces,
                                       const EncodeOptions& options) const {
  // Text between special tokens is tokenised as a whole, wherever pieces meet: a word may cross from the
  // template's text into the user's, as it did when the model was trained.
  struct Part {
    std::string text;
    int32_t special;  // the special token after the text; -1: the end
  };
  std::vector<Part> parts(1, Part{{}, -1});
  size_t bytes = 0;
  for (const TextPiece& piece : pieces) {
    bytes += piece.text.size();
    if (bytes >= kMaxText)
      throw Error("a text of {} or more cannot be tokenised at once", human_bytes(kMaxText));
    size_t from = 0;
    while (piece.special) {
      const SpecialMatcher::Match match = special_.find(piece.text, from);
      if (match.id < 0) break;
      std::string& before = parts.back().text;
      before.append(piece.text, from, match.begin - from);
      if (vocab_.lstrip[static_cast<size_t>(match.id)]) before.resize(without_trailing_space(before).size());
      parts.back().special = match.id;
      parts.push_back({{}, -1});
      from = match.end;
    }
    parts.back().text.append(piece.text, from);
  }

  std::vector<int32_t> out;
  out.reserve(bytes / 3 + 8);
  if (options.add_bos && vocab_.add_bos) out.push_back(*vocab_.bos);
  bool at_start = true;
  const auto add_text = [&](std::string_view text) {
    if (text.empty()) return;
    if (vocab_.normalizer == Normalizer::None) {
      encode_text(text, at_start, out);
    } else {
      encode_text(normalized(text, vocab_.normalizer), at_start, out);
    }
    at_start = false;
  };
  // Appends the token; returns where the text after it goes on.
  const auto add_special = [&](int32_t id, std::string_view text, size_t from) {
    out.push_back(id);
    at_start = false;
    return vocab_.rstrip[static_cast<size_t>(id)] ? from + leading_space(text.substr(from)) : from;
  };
  size_t from = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string_view text = parts[i].text;
    while (!user_defined_.empty()) {
      const SpecialMatcher::Match match = user_defined_.find(text, from);
      if (match.id < 0) break;
      const std::string_view before = text.substr(from, match.begin - from);
      add_text(vocab_.lstrip[static_cast<size_t>(match.id)] ? without_trailing_space(before) : before);
      from = add_special(match.id, text, match.end);
    }
    add_text(text.substr(from));
    if (i + 1 < parts.size()) from = add_special(parts[i].special, parts[i + 1].text, 0);
  }
  if (options.add_eos && vocab_.add_eos) out.push_back(*vocab_.eos);
  return out;
}

void Tokenizer::append_decoded(int32_t id, bool render_special, bool& at_start, std::string& out) const {
  std::string_view bytes = token_bytes(id);
  const TokenType type = vocab_.type[static_cast<size_t>(id)];
  if (type == TokenType::Control || type == TokenType::Unknown) {
    if (render_special) out += bytes;
    return;
  }
  if (bytes.empty()) return;
  if (at_start && vocab_.strip_first_space && bytes.front() == ' ') bytes.remove_prefix(1);
  at_start = false;
  out += bytes;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, const DecodeOptions& options) const {
  std::string out;
  bool at_start = options.at_start;
  for (const int32_t id : ids) append_decoded(id, options.render_special, at_start, out);
  return out;
}

std::unique_ptr<Tokenizer> make_tokenizer(const Metadata& meta) {
  Vocab vocab = load_vocab(meta);
  switch (vocab.kind) {
    case VocabKind::Spm:
      if (meta.has(kSpmMergesKey))
        return std::make_unique<CharBpeTokenizer>(std::move(vocab), meta.get_strings(kSpmMergesKey));
      return std::make_unique<SpmTokenizer>(std::move(vocab));
    case VocabKind::Bpe:
      return std::make_unique<BpeTokenizer>(std::move(vocab), meta.get_strings("tokenizer.ggml.merges"));
  }
  throw Error("{}: no tokenizer for this kind of vocabulary", meta.origin());
}

}  // namespace apr
