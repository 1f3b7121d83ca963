// Tokens to text to show, as they come: whole characters only, always valid UTF-8.
#pragma once

#include <cstdint>
#include <string>

#include "core/text/tokenizer.h"

namespace apr {

class TokenStream {
 public:
  // tokenizer must outlive the stream.
  explicit TokenStream(const Tokenizer& tokenizer, const DecodeOptions& options = {})
      : tokenizer_(&tokenizer), render_special_(options.render_special), at_start_(options.at_start) {}

  // The text that is complete with this token: maybe none, since a character's bytes may be spread over
  // several tokens. Bytes that no further byte can make a character become U+FFFD, one for each sequence that
  // was begun (Unicode 15, section 3.9, "substitution of maximal subparts").
  std::string push(int32_t id);
  // No more tokens come: U+FFFD for a character that was left unfinished.
  std::string flush();

 private:
  const Tokenizer* tokenizer_;
  bool render_special_;
  bool at_start_;
  std::string pending_;  // bytes of an unfinished character, at most 3
};

}  // namespace apr
