#include "core/text/pre_tokenizer.h"

#include <doctest/doctest.h>

#include <random>
#include <set>

#include "tests/text/vocabs.h"

using namespace apr;
using namespace apr_test;

namespace {

std::vector<std::string> words(const PreTokenizer& pre, const std::string& text) {
  std::vector<size_t> ends;
  pre.split(text, ends);
  std::vector<std::string> out;
  size_t begin = 0;
  for (const size_t end : ends) {
    out.push_back(text.substr(begin, end - begin));
    begin = end;
  }
  CHECK(begin == text.size());
  return out;
}

std::vector<std::string> words(const char* name, const std::string& text) {
  const PreTokenizerSpec* spec = find_pre_tokenizer(name);
  REQUIRE(spec != nullptr);
  return words(PreTokenizer(*spec), text);
}

using Words = std::vector<std::string>;

}  // namespace

TEST_CASE("each family cuts as its model's tokenizer does") {
  const std::string text = "I'll  pay 12345 €, OK?!\n\n\tIt'S";
  CHECK(words("gpt-2", text) ==
        Words{"I", "'ll", " ", " pay", " 12345", " €,", " OK", "?!", "\n\n", "\t", "It", "'", "S"});
  CHECK(words("llama-bpe", text) ==
        Words{"I", "'ll", " ", " pay", " ", "123", "45", " €,", " OK", "?!\n\n", "\tIt", "'S"});
  CHECK(words("qwen2", text) ==
        Words{"I", "'ll", " ", " pay", " ", "1", "2", "3", "4", "5", " €,", " OK", "?!\n\n", "\tIt", "'S"});
  CHECK(words("starcoder", text) == Words{"I", "'ll", " ", " pay", " ", "1", "2", "3", "4", "5", " €,", " OK",
                                          "?!", "\n\n", "\t", "It", "'", "S"});
  CHECK(words("falcon", text) == Words{"I", "'", "ll", " ", " pay", " ", "123", "45", " €", ",", " OK", "?!",
                                       "\n\n", "\t", "It", "'", "S"});
  CHECK(words("deepseek-llm", text) == Words{"I", "'", "ll", " ", " pay", " ", "12345", " ", "€", ",", " OK",
                                             "?!", "\n", "\n", "\tIt", "'", "S"});
  CHECK(words("deepseek-v3", text) ==
        Words{"I", "'ll", " ", " pay", " ", "123", "45", " €,", " OK", "?!\n\n", "\tIt", "'S"});
  CHECK(words("default", text) == Words{"I", "'", "ll", " ", " pay", " ", "123", "45", " €", ",", " OK", "?!",
                                        "\n\n", "\t", "It", "'", "S"});
}

TEST_CASE("words split where case falls in o200k and tekken") {
  CHECK(words("gpt-4o", "getHTTPResponse's CamelCase") == Words{"get", "HTTPResponse's", " Camel", "Case"});
  CHECK(words("tekken", "CamelCase's 12") == Words{"Camel", "Case", "'s", " ", "1", "2"});
  CHECK(words("gpt-4o", "ДомДом") == Words{"Дом", "Дом"});
}

TEST_CASE("numbers in groups of three from the right") {
  CHECK(words("superbpe", "a b1234567") == Words{"a b", "1", "234", "567"});
  CHECK(words("superbpe", "123456") == Words{"123", "456"});
  CHECK(words("tiny_aya", "12345 a") == Words{"12", "345", " a"});
  CHECK(words("afmoe", "x12345") == Words{"x", "12", "345"});
  CHECK(words("gpt-4o", "12345") == Words{"123", "45"});
}

TEST_CASE("families that differ from a common one by one thing") {
  CHECK(words("jais-2", "a       b") == Words{"a", "    ", "  ", " b"});
  CHECK(words("exaone-moe", "one two 34") == Words{"one two", " ", "3", "4"});
  CHECK(words("laguna", " \n a") == Words{" ", "\n", " a"});
  CHECK(words("qwen2", " \n a") == Words{" \n", " a"});
  CHECK(words("ufakzeka", "Ankara's") == Words{"Ankara", "'s"});
  CHECK(words("ufakzeka", "it'll") == words("qwen2", "it'll"));
  CHECK(words("ufakzeka", "Ali'den") == Words{"Ali", "'den"});
  CHECK(words("qwen2", "Ali'den") == Words{"Ali", "'d", "en"});
  CHECK(words("kimi-k2", "ab\u4E2D\u6587Cd") == Words{"ab", "\u4E2D\u6587", "Cd"});
  CHECK(words("gpt-4o", "ab\u4E2D\u6587Cd") == Words{"ab\u4E2D\u6587", "Cd"});
  CHECK(words("youtu", "a\uFF0C\uAC00b") == Words{"a", "\uFF0C", "\uAC00", "b"});
  CHECK(words("spark2_5", "!?\n") == Words{"!?", "\n"});
  CHECK(words("deepseek-v3", "!?\n") == Words{"!?\n"});
}

TEST_CASE("combining marks belong to words where the expression says so") {
  const std::string text = "e\xCC\x81t";  // e, U+0301, t
  CHECK(words("qwen35", text) == Words{text});
  CHECK(words("qwen2", text) == Words{"e", "\xCC\x81t"});
}

TEST_CASE("white space is the Unicode property") {
  // U+0085, U+00A0, U+2003 and U+3000 have it; U+180E and U+200B have not.
  CHECK(words("gpt-2", "a\u0085\u00A0\u2003\u3000b") == Words{"a", "\u0085\u00A0\u2003", "\u3000", "b"});
  CHECK(words("gpt-2", "a \u180E\u200Bb") == Words{"a", " \u180E\u200B", "b"});
}

TEST_CASE("every family is whole: names are unique, any text is covered, nothing is lost") {
  std::set<std::string> seen;
  std::mt19937_64 random(7);
  for (const PreTokenizerSpec& spec : pre_tokenizer_specs()) {
    REQUIRE_FALSE(spec.names.empty());
    for (const char* name : spec.names) {
      CAPTURE(name);
      CHECK(seen.insert(name).second);
      CHECK(find_pre_tokenizer(name) == &spec);
    }
    const PreTokenizer pre(spec);
    CHECK(words(pre, "").empty());
    for (int i = 0; i < 200; ++i) {
      const std::string text = random_text(random, 1 + random() % 60);
      std::string joined;
      for (const std::string& word : words(pre, text)) {
        CHECK_FALSE(word.empty());
        joined += word;
      }
      CHECK(joined == text);
    }
  }
  CHECK(find_pre_tokenizer("") == nullptr);
  CHECK(find_pre_tokenizer("gpt2") == nullptr);
}

TEST_CASE("long runs of one character are linear work in every family") {
  for (const PreTokenizerSpec& spec : pre_tokenizer_specs()) {
    const PreTokenizer pre(spec);
    for (const char* unit : {"a", "A", " ", "\n", "1", "!", "'", "\u4E2D", "\u0301", "aA", " a", "\u3000"}) {
      CAPTURE(spec.names[0]);
      CAPTURE(unit);
      std::string text;
      while (text.size() < 300000) text += unit;
      CHECK_FALSE(words(pre, text + "x").empty());
    }
  }
}
