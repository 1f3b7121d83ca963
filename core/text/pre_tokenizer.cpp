#include "core/text/pre_tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "core/base/error.h"
#include "core/base/format.h"

namespace apr {

namespace {

// PCRE2's \s under UCP also takes U+180E, which lost White_Space in Unicode 6.3; the expressions were written
// for engines that follow the property. So \s becomes the property's members: \t to \r, U+0085 and category
// Z.
std::string with_white_space_property(std::string_view expression) {
  constexpr std::string_view kMembers = R"(\t-\r\x{85}\p{Z})";
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < expression.size(); ++i) {
    const char c = expression[i];
    if (c == '\\') {
      // A trailing backslash is the compiler's to refuse.
      const char next = i + 1 < expression.size() ? expression[++i] : '\0';
      if (next == '\0') {
        out += '\\';
        break;
      }
      if (next == 's') {
        (in_class ? out : out += '[') += kMembers;
        if (!in_class) out += ']';
      } else if (next == 'S' && !in_class) {
        (out += "[^") += kMembers;
        out += ']';
      } else {
        (out += '\\') += next;
      }
      continue;
    }
    if (c == '[') in_class = true;
    if (c == ']') in_class = false;
    out += c;
  }
  return out;
}

std::string pcre_message(int code) {
  PCRE2_UCHAR buffer[256];
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

struct FreeMatchData {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
using MatchData = std::unique_ptr<pcre2_match_data, FreeMatchData>;

}  // namespace

struct PreTokenizer::Expression {
  explicit Expression(std::string_view source) : text(with_white_space_property(source)) {
    int error = 0;
    PCRE2_SIZE at = 0;
    code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                         PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY | PCRE2_NO_AUTO_CAPTURE, &error, &at,
                         nullptr);
    if (!code)
      throw Error("pre-tokenizer expression '{}', byte {}: {}", printable(text, 1024), at,
                  pcre_message(error));
    // Where the system forbids writable code pages this fails and pcre2_match() interprets: slower, same
    // words.
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  }
  ~Expression() { pcre2_code_free(code); }
  Expression(const Expression&) = delete;
  Expression& operator=(const Expression&) = delete;

  // Cuts text[begin, end) and appends the ends of the parts.
  void cut(std::string_view text, size_t begin, size_t end, pcre2_match_data* data,
           std::vector<size_t>& ends) const;

  std::string text;
  pcre2_code* code = nullptr;
};

void PreTokenizer::Expression::cut(std::string_view subject, size_t begin, size_t end, pcre2_match_data* data,
                                   std::vector<size_t>& ends) const {
  // The piece is its own subject: look-ahead and $ see its end, not the rest of the text.
  const auto* piece = reinterpret_cast<PCRE2_SPTR>(subject.data() + begin);
  const size_t length = end - begin;
  const PCRE2_SIZE* match = pcre2_get_ovector_pointer(data);
  size_t from = 0;  // first byte not yet in a part
  while (from < length) {
    int rc = pcre2_match(code, piece, length, from, PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, data, nullptr);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
      rc = pcre2_match(code, piece, length, from, PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY | PCRE2_NO_JIT, data,
                       nullptr);
    }
    if (rc == PCRE2_ERROR_NOMATCH) break;
    if (rc < 0) {
      throw Error("cannot cut a text of {} bytes into words: '{}' at byte {}: {}", subject.size(), text,
                  begin + from, pcre_message(rc));
    }
    if (match[0] > from) ends.push_back(begin + match[0]);
    ends.push_back(begin + match[1]);
    from = match[1];
  }
  if (from < length) ends.push_back(end);
}

PreTokenizer::PreTokenizer(const PreTokenizerSpec& spec) {
  for (const char* expression : spec.expressions)
    expressions_.push_back(std::make_unique<Expression>(expression));
}
PreTokenizer::PreTokenizer(std::span<const std::string> expressions) {
  for (const std::string& expression : expressions)
    expressions_.push_back(std::make_unique<Expression>(expression));
}
PreTokenizer::~PreTokenizer() = default;

void PreTokenizer::split(std::string_view text, std::vector<size_t>& ends) const {
  ends.clear();
  if (text.empty()) return;
  const MatchData data(pcre2_match_data_create(1, nullptr));
  if (!data) throw Error("out of memory while cutting a text into words");
  std::vector<size_t> pieces{text.size()};
  for (const auto& expression : expressions_) {
    ends.clear();
    size_t begin = 0;
    for (const size_t end : pieces) {
      expression->cut(text, begin, end, data.get(), ends);
      begin = end;
    }
    pieces.swap(ends);
  }
  ends.swap(pieces);
}

}  // namespace apr
