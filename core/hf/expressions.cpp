#include "core/hf/expressions.h"

#include "core/base/error.h"
#include "core/base/format.h"

namespace apr {

namespace {

bool is_punctuation(char c) {
  return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
}

bool is_hex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

class Translator {
 public:
  Translator(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  std::string run() {
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '\\') {
        escape();
      } else if (static_cast<uint8_t>(c) >= 0x80) {
        character();
      } else if (in_class_) {
        class_character(c);
      } else if (c == '[') {
        begin_class();
      } else if (c == '$') {
        // Ruby's ends every line.
        take(1, R"((?=\n|\z))");
      } else if (c == '^') {
        take(1, R"((?<![^\n]))");
      } else if (c == '}' && rest().starts_with("}+")) {
        fail("a repeat of a repeat");
      } else if (c == '(' && rest().starts_with("(?")) {
        group();
      } else {
        take(1);
      }
    }
    if (in_class_) fail("a class that does not end");
    return out_;
  }

 private:
  std::string_view rest() const { return text_.substr(at_); }
  void take(size_t n) {
    out_ += text_.substr(at_, n);
    at_ += n;
  }
  void take(size_t n, std::string_view instead) {
    out_ += instead;
    at_ += n;
  }
  [[noreturn]] void fail(std::string_view what) const {
    throw Error("{}: expression '{}', byte {}: {} is not supported", where_, printable(text_, 1024), at_,
                what);
  }

  // By its number, as the expressions here are written: then equal ones compare as equal.
  void character() {
    const size_t length = utf8_length(rest());
    if (length == 0) fail("a byte that is no character");
    constexpr uint8_t kLead[] = {0, 0x7F, 0x1F, 0x0F, 0x07};  // bits of the first byte, by length
    uint32_t code = static_cast<uint8_t>(text_[at_]) & kLead[length];
    for (size_t i = 1; i < length; ++i) code = code << 6 | (static_cast<uint8_t>(text_[at_ + i]) & 0x3F);
    take(length, fmt::format("\\x{{{:x}}}", code));
  }

  void escape() {
    if (at_ + 1 == text_.size()) fail("a backslash at the end");
    const char c = text_[at_ + 1];
    constexpr std::string_view kSame = "sSdDrntAzG";
    if (is_punctuation(c) || kSame.find(c) != std::string_view::npos) return take(2);
    if ((c == 'p' || c == 'P' || c == 'x') && at_ + 2 < text_.size() && text_[at_ + 2] == '{') {
      const size_t end = text_.find('}', at_);
      if (end == std::string_view::npos) fail("a { that does not end");
      return take(end + 1 - at_);
    }
    size_t digits = 0;
    while (digits < 4 && at_ + 2 + digits < text_.size() && is_hex(text_[at_ + 2 + digits])) ++digits;
    if (c == 'x' && digits >= 2) return take(4, "\\x{" + std::string(text_.substr(at_ + 2, 2)) + "}");
    if (c == 'u' && digits == 4)
      return take(6,
                  fmt::format("\\x{{{:x}}}", std::stoul(std::string(text_.substr(at_ + 2, 4)), nullptr, 16)));
    fail(std::string("\\") + c);
  }

  void begin_class() {
    in_class_ = true;
    take(1);
    if (rest().starts_with('^')) take(1);
    // A ] that comes first is itself in one dialect and the end in the other.
    if (rest().starts_with(']')) fail("an empty class");
  }

  void class_character(char c) {
    if (c == '[') fail("a class within a class");
    if (rest().starts_with("&&")) fail("&& in a class");
    in_class_ = c != ']';
    take(1);
  }

  // (?i: (?: (?= (?! (?<= (?<! (?> ; options that hold to the end of the group mean other things.
  void group() {
    for (const std::string_view known : {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"})
      if (rest().starts_with(known)) return take(known.size());
    fail(rest().substr(0, 4));
  }

  std::string_view text_;
  const std::string& where_;
  size_t at_ = 0;
  bool in_class_ = false;
  std::string out_;
};

}  // namespace

std::string pcre_of_oniguruma(std::string_view expression, const std::string& where) {
  return Translator(expression, where).run();
}

std::string pcre_literal(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (is_punctuation(c)) out += '\\';
    out += c;
  }
  return out;
}

}  // namespace apr
