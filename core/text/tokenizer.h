// Text to tokens and back, as the model's own tokenizer does it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/model/metadata.h"
#include "core/text/special_matcher.h"
#include "core/text/vocab.h"

namespace apr {

// A part of a prompt. Only the program's own text may be special: there the texts of special tokens become
// the tokens; in a user's text they stay text.
struct TextPiece {
  std::string text;
  bool special;
};

struct EncodeOptions {
  // Put BOS first and EOS last where the model asks for it (Vocab::add_bos, add_eos). A prompt to be
  // continued wants add_bos only.
  bool add_bos = true;
  bool add_eos = false;
  // Treat the whole text as special (see TextPiece).
  bool parse_special = false;
};

struct DecodeOptions {
  bool render_special = false;  // print Control and Unknown tokens' texts instead of nothing
  // The tokens begin a text: the space that encoding put in front of it (Vocab::strip_first_space) is taken
  // off again. False for the continuation of a text that was printed already.
  bool at_start = true;
};

// Immutable: any number of threads may use one at once.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  const Vocab& vocab() const { return vocab_; }
  int32_t vocab_size() const { return vocab_.size(); }
  // All of these throw apr::Error for an id outside the vocabulary.
  bool eog(int32_t id) const { return vocab_.eog[checked(id)] != 0; }                   // ends generation
  const std::string& token_text(int32_t id) const { return vocab_.text[checked(id)]; }  // as in the file
  const std::string& token_bytes(int32_t id) const {
    return vocab_.bytes[checked(id)];
  }  // what it decodes to

  // Any bytes are accepted; what is no valid UTF-8 becomes tokens of its bytes. Throws apr::Error for a text
  // of 1 GiB or more, and where the vocabulary cannot express the text.
  std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const;
  // The pieces one after the other, as if they were one text in which only special pieces are parsed for
  // special tokens. EncodeOptions::parse_special is not looked at.
  std::vector<int32_t> encode(std::span<const TextPiece> pieces, const EncodeOptions& options = {}) const;

  // The tokens' bytes: not always valid UTF-8, since tokens may cut characters. For text to show, see
  // TokenStream.
  std::string decode(std::span<const int32_t> ids, const DecodeOptions& options = {}) const;
  // One token of decode(). at_start: as in DecodeOptions for the first token, carried from token to token.
  void append_decoded(int32_t id, bool render_special, bool& at_start, std::string& out) const;

 protected:
  explicit Tokenizer(Vocab vocab);
  // Appends the tokens of text, which holds no special or user-defined tokens and stands between two of them, or at an
  // end. at_start: nothing comes before it.
  virtual void encode_text(std::string_view text, bool at_start, std::vector<int32_t>& out) const = 0;

  Vocab vocab_;

 private:
  size_t checked(int32_t id) const;

  SpecialMatcher special_;       // Control and Unknown tokens
  SpecialMatcher user_defined_;  // matched in any text
};

// From a model's metadata; see load_vocab() for what is checked. Prints nothing: vocab().warnings says what
// is odd.
std::unique_ptr<Tokenizer> make_tokenizer(const Metadata& meta);

}  // namespace apr
