#include "core/text/vocab.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/text/pre_tokenizer.h"
#include "core/text/space_mark.h"
#include "core/text/token_index.h"

namespace apr {

namespace {

// Texts that end a turn or a document in the usual families, for files that name only one end token, or none.
// The list is llama.cpp's (src/llama-vocab.cpp, function load); those of the second part separate files in
// code models.
constexpr std::string_view kEndTexts[] = {"<|eot_id|>",
                                          "<|im_end|>",
                                          "<|end|>",
                                          "<|return|>",
                                          "<|call|>",
                                          "<|flush|>",
                                          "<|calls|>",
                                          "[e~[",
                                          "<end_of_turn>",
                                          "<|endoftext|>",
                                          "</s>",
                                          "<|eom_id|>",
                                          "<EOT>",
                                          "_<EOT>",
                                          "[EOT]",
                                          "[EOS]",
                                          "<|end_of_text|>",
                                          "<end_of_utterance>",
                                          "<eos>",
                                          "<|eot|>",
                                          "<|EOT|>",
                                          "<｜end▁of▁sentence｜>",
                                          "<|END_OF_TURN_TOKEN|>",
                                          "<|fim_pad|>",
                                          "<fim-pad>",
                                          "<fim_pad>",
                                          "<|fim_repo|>",
                                          "<|repo_name|>",
                                          "<fim-repo>",
                                          "<reponame>",
                                          "<|file_sep|>"};

std::string token_name(const Vocab& vocab, int32_t id) {
  return fmt::format("{} '{}'", id, printable(vocab.text[static_cast<size_t>(id)]));
}

// Which character GPT-2's bytes_to_unicode gives to a byte.
uint32_t letter_of_byte(unsigned byte) {
  const auto stands_for_itself = [](unsigned b) {
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
  };
  if (stands_for_itself(byte)) return byte;
  uint32_t letter = 256;
  for (unsigned b = 0; b < byte; ++b) letter += !stands_for_itself(b);
  return letter;
}

// Index: the character. All letters are below U+0144. -1: no byte's letter.
const std::array<int16_t, 0x144>& bytes_of_letters() {
  static const auto table = [] {
    std::array<int16_t, 0x144> t;
    t.fill(-1);
    for (unsigned b = 0; b < 256; ++b) t[letter_of_byte(b)] = static_cast<int16_t>(b);
    return t;
  }();
  return table;
}

// The byte that "<0x0A>" names; -1 for any other text.
int byte_of_name(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return -1;
  int value = 0;
  for (const char c : text.substr(3, 2)) {
    if (c >= '0' && c <= '9') {
      value = value * 16 + (c - '0');
    } else if (c >= 'A' && c <= 'F') {
      value = value * 16 + (c - 'A' + 10);
    } else if (c >= 'a' && c <= 'f') {
      value = value * 16 + (c - 'a' + 10);
    } else {
      return -1;
    }
  }
  return value;
}

VocabKind read_kind(const Metadata& meta) {
  const std::string& model = meta.get_string("tokenizer.ggml.model");
  if (model == "llama") return VocabKind::Spm;
  if (model == "gpt2") return VocabKind::Bpe;
  std::string what = "unknown";
  if (model == "bert") what = "WordPiece, which is not supported";
  if (model == "t5") what = "SentencePiece unigram, which is not supported";
  if (model == "rwkv") what = "RWKV's, which is not supported";
  throw Error(
      "{}: tokenizer.ggml.model '{}' is {}; supported are llama (SentencePiece BPE) and gpt2 (byte-level "
      "BPE)",
      meta.origin(), printable(model), what);
}

// The spec by its name; null: the file's own expressions. Fills Vocab::expressions.
const PreTokenizerSpec* read_pre_tokenizer(const Metadata& meta, Vocab& vocab) {
  const std::optional<std::string> name = meta.find_string("tokenizer.ggml.pre");
  if (!name) {
    vocab.warnings.push_back(
        fmt::format("{}: tokenizer.ggml.pre is missing: text is cut into words as 'default' does, which may "
                    "not be what the model was "
                    "trained with; a newer conversion of the model names its pre-tokenizer",
                    meta.origin()));
  }
  vocab.pre = name.value_or("default");
  if (vocab.pre == kOwnExpressions) {
    vocab.expressions = meta.get_strings("apr.tokenizer.expressions");
    return nullptr;
  }
  const PreTokenizerSpec* spec = find_pre_tokenizer(vocab.pre);
  if (spec) {
    vocab.expressions.assign(spec->expressions.begin(), spec->expressions.end());
    return spec;
  }
  std::string known;
  for (const PreTokenizerSpec& family : pre_tokenizer_specs()) {
    for (const char* one : family.names) known += fmt::format("{}{}", known.empty() ? "" : ", ", one);
  }
  throw Error("{}: tokenizer.ggml.pre '{}' is not a known pre-tokenizer; known are {}", meta.origin(),
              printable(vocab.pre), known);
}

void check_length(const Metadata& meta, const char* key, size_t length, const Vocab& vocab) {
  if (length == vocab.text.size()) return;
  throw Error("{}: {} has {} elements, tokenizer.ggml.tokens has {}: they must be equal", meta.origin(), key,
              length, vocab.text.size());
}

void read_types(const Metadata& meta, Vocab& vocab) {
  if (!meta.has("tokenizer.ggml.token_type")) {
    vocab.type.assign(vocab.text.size(), TokenType::Normal);
    // Without types only the names tell SentencePiece's byte tokens.
    for (size_t i = 0; vocab.kind == VocabKind::Spm && i < vocab.text.size(); ++i) {
      if (byte_of_name(vocab.text[i]) >= 0) vocab.type[i] = TokenType::Byte;
    }
    vocab.warnings.push_back(fmt::format(
        "{}: tokenizer.ggml.token_type is missing: special tokens are known by their ids and texts only",
        meta.origin()));
    return;
  }
  const std::vector<int64_t> types = meta.get_ints("tokenizer.ggml.token_type");
  check_length(meta, "tokenizer.ggml.token_type", types.size(), vocab);
  vocab.type.reserve(types.size());
  for (size_t i = 0; i < types.size(); ++i) {
    if (types[i] < 0 || types[i] > 6) {
      throw Error("{}: tokenizer.ggml.token_type[{}] is {}: types are 0 to 6", meta.origin(), i, types[i]);
    }
    vocab.type.push_back(static_cast<TokenType>(types[i]));
  }
}

void read_scores(const Metadata& meta, Vocab& vocab) {
  const std::vector<double> scores = meta.get_floats("tokenizer.ggml.scores");
  check_length(meta, "tokenizer.ggml.scores", scores.size(), vocab);
  vocab.score.reserve(scores.size());
  for (size_t i = 0; i < scores.size(); ++i) {
    // A NaN has no place in the order of merges.
    if (std::isnan(scores[i])) throw Error("{}: tokenizer.ggml.scores[{}] is not a number", meta.origin(), i);
    vocab.score.push_back(static_cast<float>(scores[i]));
  }
}

// A missing key: the control token with that text, for files of SentencePiece models that leave out the usual
// ids.
std::optional<int32_t> read_id(const Metadata& meta, const char* key, const TokenIndex& index,
                               const Vocab& vocab, std::string_view usual_text) {
  if (const auto id = meta.find_uint(key, std::numeric_limits<uint32_t>::max())) {
    if (*id < vocab.text.size()) return static_cast<int32_t>(*id);
    throw Error("{}: {} is {}, but the vocabulary has {} tokens", meta.origin(), key, *id, vocab.text.size());
  }
  const int32_t id = vocab.kind == VocabKind::Spm && !usual_text.empty() ? index.find(usual_text) : -1;
  if (id < 0) return std::nullopt;
  const TokenType type = vocab.type[static_cast<size_t>(id)];
  return type == TokenType::Control || type == TokenType::Unknown ? std::optional(id) : std::nullopt;
}

void read_special_ids(const Metadata& meta, const TokenIndex& index, Vocab& vocab) {
  vocab.bos = read_id(meta, "tokenizer.ggml.bos_token_id", index, vocab, "<s>");
  vocab.eos = read_id(meta, "tokenizer.ggml.eos_token_id", index, vocab, "</s>");
  vocab.unk = read_id(meta, "tokenizer.ggml.unknown_token_id", index, vocab, "<unk>");
  vocab.eot = read_id(meta, "tokenizer.ggml.eot_token_id", index, vocab, "");
  vocab.eom = read_id(meta, "tokenizer.ggml.eom_token_id", index, vocab, "");
  // Some converters write -1 for "none", which is harmless: nothing here pads.
  const auto pad = meta.find_uint("tokenizer.ggml.padding_token_id", std::numeric_limits<uint64_t>::max());
  if (pad && *pad < vocab.text.size()) {
    vocab.pad = static_cast<int32_t>(*pad);
  } else if (pad) {
    vocab.warnings.push_back(
        fmt::format("{}: tokenizer.ggml.padding_token_id {} is not in the vocabulary of {} tokens: ignored",
                    meta.origin(), *pad, vocab.text.size()));
  }
}

// Ids of tokens in one of this program's own keys; none where it is missing.
std::vector<size_t> read_ids(const Metadata& meta, const char* key, const Vocab& vocab) {
  std::vector<size_t> out;
  if (!meta.has(key)) return out;
  for (const int64_t id : meta.get_ints(key)) {
    if (id < 0 || static_cast<uint64_t>(id) >= vocab.text.size())
      throw Error("{}: {} has {}, but the vocabulary has {} tokens", meta.origin(), key, id,
                  vocab.text.size());
    out.push_back(static_cast<size_t>(id));
  }
  return out;
}

Normalizer read_normalizer(const Metadata& meta) {
  const std::string name = meta.get_string_or("apr.tokenizer.normalizer", "none");
  constexpr std::pair<std::string_view, Normalizer> kNames[] = {{"none", Normalizer::None},
                                                                {"nfc", Normalizer::Nfc},
                                                                {"nfd", Normalizer::Nfd},
                                                                {"nfkc", Normalizer::Nfkc},
                                                                {"nfkd", Normalizer::Nfkd}};
  for (const auto& [known, normalizer] : kNames)
    if (name == known) return normalizer;
  throw Error("{}: apr.tokenizer.normalizer '{}' is unknown; known are none, nfc, nfd, nfkc and nfkd",
              meta.origin(), printable(name));
}

SpacePrefix read_space_prefix(const Metadata& meta) {
  const bool add = meta.get_bool_or("tokenizer.ggml.add_space_prefix", true);
  const std::string how = meta.get_string_or("apr.tokenizer.space_prefix", "pieces");
  if (!add) return SpacePrefix::None;
  if (how == "pieces") return SpacePrefix::Pieces;
  if (how == "pieces_once") return SpacePrefix::PiecesOnce;
  if (how == "text_once") return SpacePrefix::TextOnce;
  throw Error("{}: apr.tokenizer.space_prefix '{}' is unknown; known are pieces, pieces_once and text_once",
              meta.origin(), printable(how));
}

void mark_ends(const TokenIndex& index, bool typed, const std::vector<size_t>& extra_ends, Vocab& vocab) {
  vocab.eog.assign(vocab.text.size(), 0);
  for (const std::optional<int32_t>& id : {vocab.eos, vocab.eot, vocab.eom}) {
    if (id) vocab.eog[static_cast<size_t>(*id)] = 1;
  }
  for (const std::string_view text : kEndTexts) {
    const int32_t id = index.find(text);
    if (id < 0) continue;
    TokenType& type = vocab.type[static_cast<size_t>(id)];
    // In a text model "</s>" may be an ordinary word: only files without types are trusted by the text alone.
    if (typed && type != TokenType::Control && type != TokenType::UserDefined) continue;
    if (type != TokenType::Control) {
      vocab.warnings.push_back(fmt::format(
          "{}: token {} is taken for a control token, which ends generation, though its type is {}",
          vocab.origin, token_name(vocab, id), static_cast<int>(type)));
      type = TokenType::Control;
    }
    vocab.eog[static_cast<size_t>(id)] = 1;
  }
  for (const size_t id : extra_ends) vocab.eog[id] = 1;
  // In OpenAI's harmony format <|end|> ends a message, and <|return|> or <|call|> the answer; in Solar Open's
  // it is
  // <|flush|> or <|calls|>.
  const int32_t end = index.find("<|end|>");
  const auto both = [&](std::string_view a, std::string_view b) {
    return index.find(a) >= 0 && index.find(b) >= 0;
  };
  if (end >= 0 && (both("<|return|>", "<|call|>") || both("<|flush|>", "<|calls|>")) && vocab.eos != end) {
    vocab.eog[static_cast<size_t>(end)] = 0;
  }
}

// Which special tokens swallow the white space beside them. GGUF has no key for it: this program's own say it where the
// model came with a tokenizer.json, and Phi-3's (which swallow what follows) are known by its name, as in llama.cpp.
void mark_strips(const Metadata& meta, Vocab& vocab) {
  vocab.rstrip.assign(vocab.text.size(), 0);
  vocab.lstrip.assign(vocab.text.size(), 0);
  for (const size_t id : read_ids(meta, "apr.tokenizer.rstrip_token_ids", vocab)) vocab.rstrip[id] = 1;
  for (const size_t id : read_ids(meta, "apr.tokenizer.lstrip_token_ids", vocab)) vocab.lstrip[id] = 1;
  std::string name = meta.get_string_or("general.name", "");
  std::transform(name.begin(), name.end(), name.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  if (name.find("phi-3") == std::string::npos && name.find("phi3") == std::string::npos) return;
  for (size_t i = 0; i < vocab.text.size(); ++i) {
    const bool special = vocab.type[i] == TokenType::Control || vocab.type[i] == TokenType::UserDefined;
    const std::string& text = vocab.text[i];
    vocab.rstrip[i] = special && text != "<unk>" && text != "<s>" && text != "<|endoftext|>";
  }
}

std::string decoded(const Vocab& vocab, size_t i) {
  const std::string& text = vocab.text[i];
  switch (vocab.type[i]) {
    case TokenType::Unknown:
    case TokenType::Control:
    case TokenType::UserDefined:
      return text;
    case TokenType::Undefined:
    case TokenType::Unused:
      return "";
    case TokenType::Byte: {
      const int byte = byte_of_name(text);
      if (byte >= 0) return std::string(1, static_cast<char>(byte));
      throw Error("{}: token {} '{}' has the type of a byte token: its text must be like <0x0A>",
                  vocab.origin, i, printable(text));
    }
    case TokenType::Normal:
      break;
  }
  std::string out;
  if (vocab.kind == VocabKind::Bpe) {
    // A token with other characters was added in plain text.
    return append_unlettered(text, out) ? out : text;
  }
  size_t from = 0;
  for (size_t at = text.find(kSpaceMark); at != std::string::npos; at = text.find(kSpaceMark, from)) {
    out.append(text, from, at - from) += ' ';
    from = at + kSpaceMark.size();
  }
  return out.append(text, from);
}

}  // namespace

bool append_unlettered(std::string_view text, std::string& out) {
  const size_t before = out.size();
  const auto& bytes = bytes_of_letters();
  for (size_t i = 0; i < text.size(); ++i) {
    uint32_t letter = static_cast<uint8_t>(text[i]);
    // Letters are ASCII or two-byte characters with these lead bytes.
    if (letter >= 0xC2 && letter <= 0xC5 && i + 1 < text.size() &&
        (static_cast<uint8_t>(text[i + 1]) & 0xC0) == 0x80) {
      letter = (letter & 0x1F) << 6 | (static_cast<uint8_t>(text[++i]) & 0x3F);
    } else if (letter >= 0x80) {
      letter = static_cast<uint32_t>(bytes.size());
    }
    if (letter >= bytes.size() || bytes[letter] < 0) {
      out.resize(before);
      return false;
    }
    out += static_cast<char>(bytes[letter]);
  }
  return true;
}

Vocab load_vocab(const Metadata& meta) {
  // What could not be read when the model was opened is no obstacle to what needs no text.
  if (const auto reason = meta.find_string("apr.tokenizer.error")) throw Error(*reason);
  Vocab vocab;
  vocab.origin = meta.origin();
  vocab.kind = read_kind(meta);
  const PreTokenizerSpec* pre = vocab.kind == VocabKind::Bpe ? read_pre_tokenizer(meta, vocab) : nullptr;
  vocab.normalizer = read_normalizer(meta);

  vocab.text = meta.get_strings("tokenizer.ggml.tokens");
  // Encoders use ids beyond the vocabulary for their own symbols, so they need room below 2^31.
  if (vocab.text.empty() || vocab.text.size() > (size_t{1} << 28)) {
    throw Error("{}: tokenizer.ggml.tokens has {} elements: 1 to {} make sense", meta.origin(),
                vocab.text.size(), size_t{1} << 28);
  }
  TokenIndex index(vocab.text, vocab.text.size());
  for (int32_t id = 0; id < vocab.size(); ++id) {
    if (vocab.text[static_cast<size_t>(id)].empty())
      continue;  // reserved places in some files: never produced
    const int32_t earlier = index.add(id);
    if (earlier >= 0) {
      throw Error("{}: tokenizer.ggml.tokens has '{}' twice, as tokens {} and {}", meta.origin(),
                  printable(vocab.text[static_cast<size_t>(id)]), earlier, id);
    }
  }
  read_types(meta, vocab);
  if (vocab.kind == VocabKind::Spm) read_scores(meta, vocab);
  read_special_ids(meta, index, vocab);
  mark_ends(index, meta.has("tokenizer.ggml.token_type"),
            read_ids(meta, "apr.tokenizer.eog_token_ids", vocab), vocab);
  mark_strips(meta, vocab);

  vocab.bytes.reserve(vocab.text.size());
  for (size_t i = 0; i < vocab.text.size(); ++i) vocab.bytes.push_back(decoded(vocab, i));

  // Missing keys mean what llama.cpp takes them for.
  vocab.add_bos = meta.get_bool_or("tokenizer.ggml.add_bos_token", pre ? pre->add_bos : true);
  vocab.add_eos = meta.get_bool_or("tokenizer.ggml.add_eos_token", false);
  vocab.space_prefix = vocab.kind == VocabKind::Spm || meta.has("apr.tokenizer.space_prefix")
                           ? read_space_prefix(meta)
                           : SpacePrefix::None;
  vocab.strip_first_space =
      meta.get_bool_or("apr.tokenizer.strip_first_space", vocab.space_prefix != SpacePrefix::None);
  vocab.space_splits = meta.get_bool_or("apr.tokenizer.space_splits", false);
  vocab.fuse_unknown = meta.get_bool_or("apr.tokenizer.fuse_unknown", false);
  vocab.ignore_merges = meta.get_bool_or("apr.tokenizer.ignore_merges", pre && pre->ignore_merges);
  if (vocab.add_bos && !vocab.bos) {
    if (meta.has("tokenizer.ggml.add_bos_token")) {
      throw Error("{}: tokenizer.ggml.add_bos_token is true, but there is no tokenizer.ggml.bos_token_id",
                  meta.origin());
    }
    vocab.warnings.push_back(
        fmt::format("{}: neither tokenizer.ggml.add_bos_token nor tokenizer.ggml.bos_token_id is "
                    "there: text begins without a BOS token",
                    meta.origin()));
    vocab.add_bos = false;
  }
  if (vocab.add_eos && !vocab.eos) {
    throw Error("{}: tokenizer.ggml.add_eos_token is true, but there is no tokenizer.ggml.eos_token_id",
                meta.origin());
  }
  vocab.chat_template = meta.get_string_or("tokenizer.chat_template", "");
  return vocab;
}

}  // namespace apr
