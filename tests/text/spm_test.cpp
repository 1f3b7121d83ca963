#include "core/text/spm.h"

#include <doctest/doctest.h>

#include <ctime>
#include <map>
#include <random>

#include "core/base/format.h"
#include "core/text/tokenizer.h"
#include "tests/base/expect_error.h"
#include "tests/text/vocabs.h"

using namespace apr;
using namespace apr_test;

namespace {

using Ids = std::vector<int32_t>;
constexpr EncodeOptions kNoBos{.add_bos = false};

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == ' ' ? std::string("▁") : std::string(1, c);
  return out;
}

// The definition, quadratic and on strings: again and again, the leftmost pair whose text has the highest
// score.
std::vector<std::string> merged(const std::string& text, const std::map<std::string, double>& scores) {
  std::vector<std::string> parts;
  for (size_t at = 0; at < text.size();) {
    const size_t length = std::max<size_t>(1, utf8_length(std::string_view(text).substr(at)));
    parts.push_back(text.substr(at, length));
    at += length;
  }
  while (true) {
    size_t best = parts.size();
    double score = 0;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto found = scores.find(parts[i] + parts[i + 1]);
      if (found != scores.end() && (best == parts.size() || found->second > score)) {
        best = i;
        score = found->second;
      }
    }
    if (best == parts.size()) return parts;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<ptrdiff_t>(best) + 1);
  }
}

void compare_with_definition(uint64_t seed, bool words_cross_spaces) {
  std::mt19937_64 random(seed);
  const char* const alphabet[] = {"a", "b", "c", "ß", "中"};
  for (int round = 0; round < 40; ++round) {
    std::vector<Token> tokens{{"▁", 1, -100}};
    std::map<std::string, double> scores{{"▁", -100}};
    const size_t count = 5 + random() % 40;
    while (tokens.size() < count) {
      std::string text(random() % 3 == 0 ? "▁" : "");
      for (size_t n = 1 + random() % 4; n > 0; --n) {
        text += alphabet[random() % 5];
        if (words_cross_spaces && random() % 8 == 0) text += "▁";
      }
      const double score = -static_cast<double>(random() % 10);  // many ties
      if (scores.emplace(text, score).second) tokens.push_back({text, 1, score});
    }
    Metadata meta = spm_vocab(tokens);
    meta.add("tokenizer.ggml.add_space_prefix", false);
    const auto tokenizer = make_tokenizer(meta);
    for (int i = 0; i < 100; ++i) {
      std::string text;
      for (size_t n = random() % 60; n > 0; --n) text += random() % 4 ? alphabet[random() % 5] : " ";
      std::vector<std::string> expected;
      for (const std::string& part : merged(escaped(text), scores)) {
        if (scores.count(part)) {
          expected.push_back(part);
        } else {
          for (const char c : part) expected.push_back(tokenizer->token_text(static_cast<uint8_t>(c) + 3));
        }
      }
      std::vector<std::string> found;
      for (const int32_t id : tokenizer->encode(text, kNoBos)) found.push_back(tokenizer->token_text(id));
      CAPTURE(text);
      CHECK(found == expected);
    }
  }
}

}  // namespace

TEST_CASE("merging follows the definition, word by word") { compare_with_definition(21, false); }
TEST_CASE("merging follows the definition, across spaces") { compare_with_definition(22, true); }

TEST_CASE("text begins with a space, and so does text after a special token") {
  const auto tokenizer =
      make_tokenizer(spm_vocab({{"▁", 1, -9}, {"a", 1, -9}, {"▁a", 1, -1}, {"<x>", 3}, {"tool", 4}}));
  CHECK(tokenizer->encode("a") == Ids{1, 261});
  CHECK(tokenizer->encode("a", kNoBos) == Ids{261});
  CHECK(tokenizer->encode(" a", kNoBos) == Ids{259, 261});
  CHECK(tokenizer->encode("") == Ids{1});
  CHECK(tokenizer->encode("", kNoBos).empty());
  CHECK(tokenizer->encode("a<x>a", {.add_bos = false, .parse_special = true}) == Ids{261, 262, 261});
  // User-defined tokens are found in any text.
  CHECK(tokenizer->encode("atoola", kNoBos) == Ids{261, 263, 261});
  // Without parsing, a control token's text is text.
  CHECK(tokenizer->encode("<x>", kNoBos) == Ids{259, 3 + '<', 3 + 'x', 3 + '>'});
  CHECK(tokenizer->decode(tokenizer->encode("a a")) == "a a");
  CHECK(tokenizer->decode(Ids{261}, {.at_start = false}) == " a");
  CHECK(tokenizer->decode(Ids{1, 261, 2}) == "a");
  CHECK(tokenizer->decode(Ids{1, 261, 2}, {.render_special = true}) == "<s>a</s>");
}

TEST_CASE("special, byte and unused tokens never come out of merging") {
  const auto tokenizer = make_tokenizer(
      spm_vocab({{"<", 1, -1}, {"s", 1, -1}, {">", 1, -1}, {"<s", 1, -1}, {"as", 5, 0}, {"<0x0A", 1, -1}}));
  CHECK(tokenizer->encode("<s>", {.add_bos = false}).size() == 5);  // three bytes of ▁, "<s", ">"
  for (const int32_t id : tokenizer->encode("<s> </s> <unk> <0x0A> as", kNoBos)) {
    const TokenType type = tokenizer->vocab().type[static_cast<size_t>(id)];
    CHECK((type == TokenType::Normal || type == TokenType::Byte));
    CHECK(id != 3 + 0x0A);
    CHECK(id > 2);
  }
}

TEST_CASE("characters outside the vocabulary become byte tokens, or the unknown token") {
  const auto with_bytes = make_tokenizer(spm_vocab({{"▁", 1, -1}}));
  CHECK(with_bytes->encode("é", kNoBos) == Ids{259, 3 + 0xC3, 3 + 0xA9});
  CHECK(with_bytes->encode("\xC3(", kNoBos) == Ids{259, 3 + 0xC3, 3 + '('});

  Metadata meta("test.gguf");
  meta.add("tokenizer.ggml.model", std::string("llama"));
  put_tokens(meta, {{"<unk>", 2}, {"a", 1, -1}, {"▁", 1, -1}}, true);
  meta.add("tokenizer.ggml.unknown_token_id", uint64_t{0});
  meta.add("tokenizer.ggml.add_bos_token", false);
  CHECK(make_tokenizer(meta)->encode("aéa") == Ids{2, 1, 0, 1});
  put_tokens(meta, {{"b", 1, -1}, {"a", 1, -1}, {"▁", 1, -1}}, true);
  meta.erase("tokenizer.ggml.unknown_token_id");
  CHECK_HAS(error_of([&] { return make_tokenizer(meta)->encode("é").size(); }),
            "test.gguf: the vocabulary has no token for 'é'");
}

TEST_CASE("any bytes survive the round trip") {
  std::mt19937_64 random(5);
  const auto tokenizer =
      make_tokenizer(spm_vocab({{"▁", 1, -9}, {"▁▁", 1, -1}, {"ab", 1, -2}, {"▁ab", 1, -1}, {"中", 1, -3}}));
  for (int i = 0; i < 500; ++i) {
    std::string text = random_text(random, random() % 60);
    CHECK(tokenizer->decode(tokenizer->encode(text)) == text);
    text = random_bytes(random, random() % 100);
    if (text.find("\xE2\x96\x81") == std::string::npos)
      CHECK(tokenizer->decode(tokenizer->encode(text)) == text);
  }
}

TEST_CASE("a made-up vocabulary of t<id> tokens encodes by bytes and decodes by name") {
  std::vector<Token> tokens;
  for (int id = 259; id < 600; ++id)
    tokens.push_back({"t" + std::to_string(id), 1, -static_cast<double>(id - 259)});
  Metadata meta = spm_vocab(tokens);
  meta.add("tokenizer.ggml.pre", std::string("default"));
  const auto tokenizer = make_tokenizer(meta);
  // No merge leads to "t300": none of "t3", "30", "00" is a token.
  Ids expected{1, 3 + 0xE2, 3 + 0x96, 3 + 0x81};
  for (const char c : std::string("t300t301")) expected.push_back(3 + c);
  CHECK(tokenizer->encode("t300t301") == expected);
  CHECK(tokenizer->decode(Ids{300, 301}) == "t300t301");
}

TEST_CASE("Phi-3's special tokens swallow the white space after them") {
  const std::vector<Token> extra{
      {"▁", 1, -9}, {"a", 1, -9}, {"▁a", 1, -1}, {"<|user|>", 3}, {"<|endoftext|>", 3}};
  Metadata meta = spm_vocab(extra);
  constexpr EncodeOptions kSpecial{.add_bos = false, .parse_special = true};
  CHECK(make_tokenizer(meta)->encode("<|user|> a", kSpecial) == Ids{262, 259, 261});
  meta.add("general.name", std::string("Phi-3 Mini"));
  const auto tokenizer = make_tokenizer(meta);
  CHECK(tokenizer->encode("<|user|> \n a", kSpecial) == Ids{262, 261});
  CHECK(tokenizer->encode("<|endoftext|> a", kSpecial) == Ids{263, 259, 261});
  const std::vector<TextPiece> pieces{{"<|user|>\n", true}, {" a", false}};
  CHECK(tokenizer->encode(pieces, kNoBos) == Ids{262, 261});
}

TEST_CASE("a text of a million bytes takes seconds at most, with words and without") {
  const auto start = std::clock();
  for (const char* extra : {"zzz", "z▁z"}) {
    const auto tokenizer = make_tokenizer(spm_vocab({{"a", 1, -9},
                                                     {"aa", 1, -1},
                                                     {"aaaa", 1, -2},
                                                     {"▁", 1, -9},
                                                     {"▁▁", 1, -3},
                                                     {"▁a", 1, -4},
                                                     {extra, 1, -5}}));
    for (const char* unit : {"a", " ", "a ", "\xE2"}) {
      std::string text;
      while (text.size() < 1000000) text += unit;
      CHECK(tokenizer->encode(text).size() > 200000);
    }
  }
  CHECK(std::clock() - start < 60 * CLOCKS_PER_SEC);
}
