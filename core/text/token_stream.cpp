#include "core/text/token_stream.h"

#include "core/base/format.h"

namespace apr {

namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// How many of text's first bytes begin some valid sequence, for a text that begins with none that is whole; 0
// for a byte that begins none.
size_t begun_length(std::string_view text) {
  const auto lead = static_cast<uint8_t>(text[0]);
  if (lead < 0xC2 || lead > 0xF4) return 0;
  const size_t whole = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  size_t length = 1;
  while (length < whole && length < text.size()) {
    const auto byte = static_cast<uint8_t>(text[length]);
    uint8_t low = 0x80;
    uint8_t high = 0xBF;
    if (length ==
        1) {  // the second byte's range excludes overlong forms, surrogates and values above U+10FFFF
      if (lead == 0xE0) low = 0xA0;
      if (lead == 0xED) high = 0x9F;
      if (lead == 0xF0) low = 0x90;
      if (lead == 0xF4) high = 0x8F;
    }
    if (byte < low || byte > high) break;
    ++length;
  }
  return length;
}

}  // namespace

std::string TokenStream::push(int32_t id) {
  tokenizer_->append_decoded(id, render_special_, at_start_, pending_);
  const std::string_view bytes = pending_;
  std::string out;
  size_t at = 0;
  while (at < bytes.size()) {
    const size_t whole = utf8_length(bytes.substr(at));
    if (whole > 0) {
      out.append(bytes.substr(at, whole));
      at += whole;
      continue;
    }
    const size_t begun = begun_length(bytes.substr(at));
    if (begun > 0 && at + begun == bytes.size()) break;  // the next token may finish it
    out += kReplacement;
    at += begun > 0 ? begun : 1;
  }
  pending_.erase(0, at);
  return out;
}

std::string TokenStream::flush() {
  const bool unfinished = !pending_.empty();
  pending_.clear();
  return unfinished ? std::string(kReplacement) : std::string();
}

}  // namespace apr
