// The gate on the tokenizer: what goes in comes out. It needs no second tokenizer to compare with: every byte
// of a text must survive, whatever tokens carry it.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/base/format.h"
#include "core/qa/gates.h"
#include "core/text/space_mark.h"

namespace apr {

namespace {

// Each is known to have broken a tokenizer: runs and kinds of white space, apostrophes, digits, several scripts,
// composed and decomposed letters, emoji of several code points, texts that look like special tokens.
constexpr std::array<std::string_view, 24> kTexts = {
    " ",
    "  two  spaces  inside and after  ",
    "\n",
    "\n\n\n  \t \t\tindent\r\nreturn\n",
    "Hello",
    "Hello, world!",
    "I'm, you're, he'd, we'll, THEY'VE, it's",
    "1 22 333 4444 55555 3.14159 -1e-5 0x7f",
    "snake_case camelCase kebab-case a/b\\c",
    "if (x[i] != \"y\") { return f(&z, *p); } // ok",
    "<s></s><|endoftext|>[INST]<|im_start|>user",
    "\xC3\x9C"
    "ber Stra\xC3\x9F"
    "en, na\xC3\xAFve caf\xC3\xA9",
    "cafe\xCC\x81 e\xCC\x81\xCC\x82",                                              // combining accents
    "\xD0\x9F\xD1\x80\xD0\xB8\xD0\xB2\xD0\xB5\xD1\x82, \xD0\xBC\xD0\xB8\xD1\x80",  // Cyrillic
    "\xE4\xBD\xA0\xE5\xA5\xBD\xE4\xB8\x96\xE7\x95\x8C\xE3\x80\x82",                // Chinese
    "\xE3\x81\x93\xE3\x82\x93\xE3\x81\xAB\xE3\x81\xA1\xE3\x81\xAF \xEC\x95\x88\xEB\x85\x95",  // kana, Hangul
    "\xD7\xA9\xD7\x9C\xD7\x95\xD7\x9D \xD9\x85\xD8\xB1\xD8\xAD\xD8\xA8\xD8\xA7",              // right to left
    "\xE0\xA4\xA8\xE0\xA4\xAE\xE0\xA4\xB8\xE0\xA5\x8D\xE0\xA4\xA4\xE0\xA5\x87",               // Devanagari
    "\xF0\x9F\x98\x80 \xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x91\xA7",  // joined emoji
    "\xC2\xA0\xE2\x80\x83\xE2\x80\x8B\xEF\xBB\xBFx",  // white space that is none
    "\xE2\x96\x81\xC4\xA0",                           // the letters that tokenizers write a space with
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "\x01\x7F",
    "\xFF\xC0 not UTF-8 \xE2\x82",
};

bool is_text(std::string_view bytes) {
  for (size_t at = 0; at < bytes.size();) {
    const size_t length = utf8_length(bytes.substr(at));
    if (length == 0) return false;
    at += length;
  }
  return !bytes.empty();
}

// Texts of the list and tokens of the vocabulary, counted apart.
struct Count {
  size_t texts = 0, tokens = 0;
  size_t sum() const { return texts + tokens; }
  void add(bool token) { ++(token ? tokens : texts); }
};

std::string of(const Count& some, const Count& all) {
  return fmt::format("{} of {} texts and {} of {} printable tokens", some.texts, all.texts, some.tokens,
                     all.tokens);
}

// SentencePiece's vocabularies have a letter for the space. One in which no token has it (made up for a test of speed,
// say) loses every space, whatever the tokenizer does: byte tokens give the letter back, not the space. This
// is read off the file's own texts, so that no fault of a tokenizer can pass for it.
bool can_write_spaces(const Vocab& vocab) {
  if (vocab.kind != VocabKind::Spm) return true;
  for (int32_t id = 0; id < vocab.size(); ++id) {
    const std::string& text = vocab.text[static_cast<size_t>(id)];
    if (!vocab.mergeable(id)) continue;
    if (text.find(kSpaceMark) != std::string::npos || text.find(' ') != std::string::npos) return true;
  }
  return false;
}

// A vocabulary with a normaliser, or with tokens that swallow white space, says so.
bool may_change_texts(const Vocab& v) {
  const auto any = [](const std::vector<uint8_t>& flags) {
    return std::any_of(flags.begin(), flags.end(), [](uint8_t f) { return f != 0; });
  };
  return v.normalizer != Normalizer::None || any(v.rstrip) || any(v.lstrip) ||
         v.space_prefix == SpacePrefix::PiecesOnce || v.space_prefix == SpacePrefix::TextOnce;
}

class RoundTrip {
 public:
  RoundTrip(const Tokenizer& tokenizer, QaResult& result)
      : tokenizer_(tokenizer),
        result_(result),
        normalises_(may_change_texts(tokenizer.vocab())),
        spaces_(can_write_spaces(tokenizer.vocab())) {}

  // token: of the vocabulary; -1: one of the texts.
  void check(std::string_view text, int32_t token) {
    const bool is_token = token >= 0;
    all.add(is_token);
    EncodeOptions options;
    options.add_bos = false;
    std::vector<int32_t> ids;
    try {
      ids = tokenizer_.encode(text, options);
    } catch (const std::exception&) {
      not_expressible.add(is_token);  // and said so: a vocabulary need not have every byte
      return;
    }
    const Vocab& vocab = tokenizer_.vocab();
    const auto unknown = [&](int32_t id) {
      return vocab.type[static_cast<size_t>(id)] == TokenType::Unknown;
    };
    if (std::any_of(ids.begin(), ids.end(), unknown) ||
        (!spaces_ && text.find(' ') != std::string_view::npos)) {
      not_expressible.add(is_token);
      return;
    }
    const std::string back = tokenizer_.decode(ids);
    if (back == text) return;
    // Texts are compared in their normal form, which encoding once more shows. To SentencePiece the letter for a space
    // is a space, also in a user's text.
    const bool may_change =
        normalises_ || (vocab.kind == VocabKind::Spm && text.find(kSpaceMark) != std::string_view::npos);
    if (may_change && tokenizer_.encode(back, options) == ids) {
      normalised.add(is_token);
      return;
    }
    failed.add(is_token);
    if (result_.details.size() < 8)
      result_.details.push_back(fmt::format("{}: '{}' comes back as '{}'",
                                            is_token ? fmt::format("token {}", token) : "text",
                                            printable(text, 48), printable(back, 48)));
  }

  Count all, failed, not_expressible, normalised;

 private:
  const Tokenizer& tokenizer_;
  QaResult& result_;
  const bool normalises_, spaces_;
};

}  // namespace

QaResult gate_tokenizer(QaSubject& subject) { return judge_tokenizer(subject.tokenizer()); }

QaResult judge_tokenizer(const Tokenizer& tokenizer) {
  const Vocab& vocab = tokenizer.vocab();
  if (vocab.space_prefix != SpacePrefix::None && !can_write_spaces(vocab))
    throw NotRunnable(fmt::format(
        "the vocabulary cannot write text: every text begins with a space, and none of its {} tokens "
        "has {}, which stands for one; a made-up vocabulary?",
        vocab.size(), kSpaceMark));
  QaResult result{QaVerdict::Pass, "texts and tokens that change", 0.0, 0.0, "", {}};
  RoundTrip trip(tokenizer, result);
  for (const std::string_view text : kTexts) trip.check(text, -1);
  for (int32_t id = 0; id < vocab.size(); ++id) {
    const std::string& bytes = vocab.bytes[static_cast<size_t>(id)];
    if (vocab.mergeable(id) && is_text(bytes)) trip.check(bytes, id);
  }
  if (trip.not_expressible.sum() == trip.all.sum())
    throw NotRunnable("the vocabulary can express none of the texts and has no printable token");
  result.value = static_cast<double>(trip.failed.sum());
  result.text =
      fmt::format("{} texts and {} printable tokens of {}", trip.all.texts, trip.all.tokens, vocab.size());
  if (trip.failed.sum() > 0) {
    result.verdict = QaVerdict::Fail;
    result.text = of(trip.failed, trip.all) + " do not come back as they were";
  }
  if (trip.not_expressible.sum() > 0)
    result.details.push_back(of(trip.not_expressible, trip.all) +
                             " were left out: the vocabulary has no tokens for them");
  if (trip.normalised.sum() > 0)
    result.details.push_back(of(trip.normalised, trip.all) +
                             " come back in the vocabulary's own normal form");
  for (const std::string& warning : vocab.warnings) result.details.push_back(warning);
  return result;
}

}  // namespace apr
