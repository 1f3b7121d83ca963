#include "core/text/token_stream.h"

#include <doctest/doctest.h>

#include <random>

#include "core/base/format.h"
#include "tests/text/vocabs.h"

using namespace apr;
using namespace apr_test;

namespace {

using Ids = std::vector<int32_t>;

bool valid(std::string_view text) {
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string streamed(const Tokenizer& tokenizer, const Ids& ids, const DecodeOptions& options = {}) {
  TokenStream stream(tokenizer, options);
  std::string out;
  for (const int32_t id : ids) {
    const std::string text = stream.push(id);
    CHECK(valid(text));
    out += text;
  }
  const std::string rest = stream.flush();
  CHECK(valid(rest));
  CHECK(stream.flush().empty());
  return out + rest;
}

// Tokens 0..255 are the bytes.
std::string streamed_bytes(const Tokenizer& tokenizer, std::string_view bytes) {
  Ids ids;
  for (const char c : bytes) ids.push_back(static_cast<uint8_t>(c));
  return streamed(tokenizer, ids);
}

}  // namespace

TEST_CASE("a character is shown when its last byte has come") {
  const auto tokenizer = make_tokenizer(bpe_vocab({}));
  TokenStream stream(*tokenizer);
  CHECK(stream.push('a') == "a");
  CHECK(stream.push(0xF0) == "");
  CHECK(stream.push(0x9F) == "");
  CHECK(stream.push(0x98) == "");
  CHECK(stream.push(0x81) == "😁");
  CHECK(stream.push(0xC3) == "");
  CHECK(stream.push('b') == "\uFFFDb");
  CHECK(stream.push(0xE2) == "");
  CHECK(stream.push(0x96) == "");
  CHECK(stream.flush() == "\uFFFD");
  CHECK(stream.push(0x80) == "\uFFFD");  // begins nothing: no need to wait
}

TEST_CASE("broken sequences are replaced as Unicode recommends") {
  const auto tokenizer = make_tokenizer(bpe_vocab({}));
  const auto shown = [&](std::string_view bytes) { return streamed_bytes(*tokenizer, bytes); };
  const std::string r = "\uFFFD";
  CHECK(shown("\xC0\x80") == r + r);                  // overlong
  CHECK(shown("\xE0\x80\x80") == r + r + r);          // overlong
  CHECK(shown("\xED\xA0\x80") == r + r + r);          // surrogate
  CHECK(shown("\xF4\x90\x80\x80") == r + r + r + r);  // above U+10FFFF
  CHECK(shown("\xF5\x80") == r + r);
  CHECK(shown("\xE2\x96x") == r + "x");  // one for a sequence that was begun
  CHECK(shown("\xF0\x9F\x98\xF0\x9F\x98\x81") == r + "😁");
  CHECK(shown("\xF0\x9F\xE2\x96\x81") == r + "▁");
  CHECK(shown("\xFF"
              "a\xFE") == r + "a" + r);
  // Unicode 15, table 3-8.
  CHECK(shown("a\xF1\x80\x80\xE1\x80\xC2"
              "b\x80"
              "c\x80\xBF"
              "d") == "a" + r + r + r + "b" + r + "c" + r + r + "d");
}

TEST_CASE("valid text comes out as it went in, however tokens cut it") {
  std::mt19937_64 random(9);
  const auto bpe = make_tokenizer(
      bpe_vocab({{"\xF0", "\x9F"}, {" ", "a"}, {"\xB8", "\xAD"}, {"\x98", " a"}, {"a", "\xE4"}}));
  const auto spm = make_tokenizer(spm_vocab({{"▁", 1, -9}, {"▁a", 1, -1}, {"中", 1, -2}, {"ab", 1, -3}}));
  for (int i = 0; i < 300; ++i) {
    const std::string text = random_text(random, random() % 50);
    CHECK(streamed(*bpe, bpe->encode(text)) == text);
    CHECK(streamed(*spm, spm->encode(text)) == text);
    // What is shown does not depend on where tokens end.
    const std::string bytes = random_bytes(random, random() % 100);
    CHECK(streamed(*bpe, bpe->encode(bytes)) == streamed_bytes(*bpe, bytes));
  }
}

TEST_CASE("special tokens are shown on request, and unused ones never") {
  const auto tokenizer = make_tokenizer(bpe_vocab({}, {{"<|end|>", 3}, {"[PAD]", 5}, {"<tool>", 4}}));
  const Ids ids{'a', 256, 257, 258, 'b'};
  CHECK(streamed(*tokenizer, ids) == "a<tool>b");
  CHECK(streamed(*tokenizer, ids, {.render_special = true}) == "a<|end|><tool>b");
}

TEST_CASE("the space in front of a SentencePiece text is taken off once, at the start only") {
  const auto tokenizer = make_tokenizer(spm_vocab({{"▁", 1, -9}, {"▁a", 1, -1}, {"▁▁", 1, -2}}));
  CHECK(streamed(*tokenizer, {1, 260, 260}) == "a a");
  CHECK(streamed(*tokenizer, {260, 260}, {.at_start = false}) == " a a");
  CHECK(streamed(*tokenizer, {261, 260}) == "  a");
  CHECK(streamed(*tokenizer, {3 + 'x', 260}) == "x a");
  CHECK(streamed(*tokenizer, {1, 260}, {.render_special = true}) == "<s>a");
}
