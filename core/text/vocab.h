// A model's vocabulary: what the tokenizer.* keys of its metadata say, checked, with every default decided.
// The keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#tokenizer.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/model/metadata.h"

namespace apr {

// tokenizer.ggml.token_type, with its numbers.
enum class TokenType : uint8_t {
  Undefined = 0,
  Normal = 1,       // produced by merging
  Unknown = 2,      // stands for text that no other token covers
  Control = 3,      // special: structures the input, is never produced from a user's text
  UserDefined = 4,  // added to the vocabulary as a whole: matched in any text before everything else
  Unused = 5,       // padding of the vocabulary: never produced, decodes to nothing
  Byte = 6,         // "<0x0A>": one byte of text that no other token covers
};

// How text becomes tokens.
enum class VocabKind {
  Spm,  // tokenizer.ggml.model = "llama": SentencePiece BPE, merges by score
  Bpe,  // "gpt2": byte-level BPE, merges by rank inside the words that a pre-tokenizer cuts
};

// Which text gets a space in front (Spm).
enum class SpacePrefix {
  None,
  Pieces,      // every piece: the text's beginning, and what follows a special or user-defined token
  PiecesOnce,  // the same, but for a piece that begins with a space
  TextOnce,    // only the text's beginning, unless it begins with a space or a token
};

enum class Normalizer { None, Nfc, Nfd, Nfkc, Nfkd };

struct Vocab {
  std::string origin;  // the model file's name, for errors
  VocabKind kind;
  std::string
      pre;  // Bpe: name of the pre-tokenizer, known to find_pre_tokenizer(), or kOwnExpressions; Spm: empty
  std::vector<std::string> expressions;  // Bpe: of the pre-tokenizer, in order
  Normalizer normalizer;                 // of text between special and user-defined tokens

  // Indexed by token id; all of one length, at least 1.
  std::vector<std::string>
      text;  // as in the file: byte-level BPE writes bytes as letters ("Ġthe"), SPM writes ▁ for a space
  std::vector<std::string>
      bytes;  // what the token decodes to: " the". Control and Unknown: the text; Unused, Undefined: ""
  std::vector<TokenType> type;
  std::vector<float> score;     // Spm only, else empty; larger merges first
  std::vector<uint8_t> eog;     // 1: ends generation
  std::vector<uint8_t> rstrip;  // 1: swallows white space that follows it in a text
  std::vector<uint8_t> lstrip;  // 1: ... that comes before it

  std::optional<int32_t> bos, eos, eot, eom, unk, pad;
  bool add_bos;              // encoding for a model begins with bos
  bool add_eos;              // ... and ends with eos
  SpacePrefix space_prefix;  // Spm
  bool strip_first_space;    // Spm: decoding takes one space off the beginning
  bool space_splits;         // Spm with merges: no merge crosses the beginning of a ▁
  bool fuse_unknown;         // Spm with merges: unknown characters side by side are one unknown token
  bool ignore_merges;  // Bpe, Spm with merges: a word that is a token is that token, whatever the merges say

  std::string chat_template;          // Jinja source, empty when the file has none
  std::vector<std::string> warnings;  // one line each: what is odd in the file and what was assumed

  int32_t size() const { return static_cast<int32_t>(text.size()); }
  // Tokens that merging may produce. Control, Unknown and Byte tokens are left out, so that their texts in a
  // user's text stay text; Unused and Undefined ones have no text to round-trip to.
  bool mergeable(int32_t id) const {
    const TokenType t = type[static_cast<size_t>(id)];
    return t == TokenType::Normal || t == TokenType::UserDefined;
  }
  // The byte that a token of type Byte stands for.
  uint8_t byte_value(int32_t id) const { return static_cast<uint8_t>(bytes[static_cast<size_t>(id)][0]); }
};

// tokenizer.ggml.pre of a file whose apr.tokenizer.expressions are its own: no reader that would cut otherwise knows it.
constexpr std::string_view kOwnExpressions = "apr.expressions";
// Spm: merges in their order, "left right", where a file has them (Hugging Face's do): they decide instead of scores.
constexpr std::string_view kSpmMergesKey = "apr.tokenizer.merges";

// Throws apr::Error that names the key and the file: no or an unsupported tokenizer.ggml.model, an unknown
// tokenizer.ggml.pre, arrays of different lengths, ids outside the vocabulary, duplicate tokens.
Vocab load_vocab(const Metadata& meta);

// Byte-level BPE's letters for bytes (GPT-2's bytes_to_unicode: printable Latin-1 stands for itself, the
// other 68 bytes for U+0100 and up). Appends text's bytes; false, with out as it was, where a character
// stands for no byte.
bool append_unlettered(std::string_view text, std::string& out);

}  // namespace apr
