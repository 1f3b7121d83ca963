#include "core/text/bpe.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <ctime>
#include <map>
#include <random>

#include "core/text/tokenizer.h"
#include "tests/base/expect_error.h"
#include "tests/text/vocabs.h"

using namespace apr;
using namespace apr_test;

namespace {

using Ids = std::vector<int32_t>;
using Merges = std::vector<std::pair<std::string, std::string>>;

// The definition, quadratic and on strings: again and again, the leftmost pair of the lowest rank.
std::vector<std::string> merged(const std::string& word,
                                const std::map<std::pair<std::string, std::string>, size_t>& ranks) {
  std::vector<std::string> parts;
  for (const char c : word) parts.emplace_back(1, c);
  while (true) {
    size_t best = parts.size();
    size_t rank = SIZE_MAX;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto found = ranks.find({parts[i], parts[i + 1]});
      if (found != ranks.end() && found->second < rank) {
        best = i;
        rank = found->second;
      }
    }
    if (best == parts.size()) return parts;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<ptrdiff_t>(best) + 1);
  }
}

// Merges of strings over a few letters that earlier merges made.
Merges random_merges(std::mt19937_64& random, size_t count) {
  std::vector<std::string> strings{"a", "b", "c", "\xFF"};
  Merges merges;
  while (merges.size() < count) {
    const std::string& left = strings[random() % strings.size()];
    const std::string& right = strings[random() % strings.size()];
    if (left.size() + right.size() > 12) continue;
    merges.emplace_back(left, right);
    strings.push_back(left + right);
  }
  return merges;
}

}  // namespace

TEST_CASE("merging follows the definition, for short and long words") {
  std::mt19937_64 random(11);
  for (int round = 0; round < 40; ++round) {
    const Merges merges = random_merges(random, 1 + random() % 40);
    std::map<std::pair<std::string, std::string>, size_t> ranks;
    for (size_t i = 0; i < merges.size(); ++i) ranks.emplace(merges[i], i);
    const Vocab vocab = load_vocab(bpe_vocab(merges));
    std::vector<std::string> lines;
    for (const auto& [left, right] : merges) lines.push_back(letters(left) + " " + letters(right));
    std::vector<std::string> warnings;
    const BpeEncoder bpe(vocab, lines, warnings);
    BpeEncoder::Scratch scratch;
    for (int i = 0; i < 100; ++i) {
      std::string word;
      for (size_t n = random() % (i % 10 == 0 ? 200 : 40); n > 0; --n) word += "aaabbc\xFF"[random() % 7];
      Ids ids;
      bpe.encode(word, scratch, ids);
      std::vector<std::string> parts;
      for (const int32_t id : ids) parts.push_back(vocab.bytes[static_cast<size_t>(id)]);
      CAPTURE(word);
      CHECK(parts == merged(word, ranks));
    }
  }
}

TEST_CASE("equal ranks merge from the left") {
  const auto tokenizer = make_tokenizer(bpe_vocab({{"a", "a"}}));
  CHECK(tokenizer->encode("aaa") == Ids{256, 'a'});
  CHECK(tokenizer->encode(std::string(51, 'a')) == [] {
    Ids ids(25, 256);
    ids.push_back('a');
    return ids;
  }());
}

TEST_CASE("a word of the vocabulary is taken whole only where merges are to be ignored") {
  // "abc" is a token, but its merges never lead there.
  const Merges merges{{"b", "c"}, {"a", "b"}};
  const std::vector<Token> extra{{"abc"}};
  CHECK(make_tokenizer(bpe_vocab(merges, extra, "qwen2"))->encode("abc") == Ids{'a', 256});
  Metadata meta = bpe_vocab(merges, extra, "llama-bpe");
  meta.add("tokenizer.ggml.add_bos_token", false);
  CHECK(make_tokenizer(meta)->encode("abc") == Ids{258});
}

TEST_CASE("merges through strings that are no tokens end in bytes") {
  Metadata meta = bpe_vocab({});
  // "ab" is no token, "abc" is: the way there may pass through it.
  std::vector<Token> tokens;
  for (unsigned b = 0; b < 256; ++b) tokens.push_back({letter(b)});
  tokens.push_back({"abc"});
  put_tokens(meta, tokens, false);
  meta.set("tokenizer.ggml.merges", array_of(std::vector<std::string>{"a b", "ab c"}));
  const auto tokenizer = make_tokenizer(meta);
  CHECK(tokenizer->encode("abc") == Ids{256});
  CHECK(tokenizer->encode("abd") == Ids{'a', 'b', 'd'});
}

TEST_CASE("bytes without a token are the unknown token, or an error") {
  Metadata meta = bpe_vocab({});
  std::vector<Token> tokens{{"a"}, {"<unk>", 2}};
  put_tokens(meta, tokens, false);
  CHECK_HAS(error_of([&] { return make_tokenizer(meta)->encode("ab").size(); }),
            "test.gguf: the vocabulary has no token for byte 0x62");
  meta.add("tokenizer.ggml.unknown_token_id", uint64_t{1});
  CHECK(make_tokenizer(meta)->encode("aba") == Ids{0, 1, 0});
}

TEST_CASE("control tokens never come out of merging") {
  // The merges can build "<x>", which is a control token.
  Metadata meta = bpe_vocab({{"<", "x"}}, {{"<x>", 3}});
  meta.set("tokenizer.ggml.merges", array_of(std::vector<std::string>{"< x", "<x >"}));
  const auto tokenizer = make_tokenizer(meta);
  CHECK(tokenizer->encode("<x>") == Ids{'<', 'x', '>'});
  CHECK(tokenizer->encode("<x>", {.parse_special = true}) == Ids{257});
}

TEST_CASE("any bytes survive the round trip") {
  std::mt19937_64 random(3);
  const Merges merges{{"a", "b"},       {" ", "a"},           {"\xD0", "\xB0"},
                      {"\xF0", "\x9F"}, {"\xF0\x9F", "\x98"}, {"1", "2"}};
  for (const char* pre : {"gpt-2", "llama-bpe", "qwen2", "default", "deepseek-v3", "gpt-4o"}) {
    Metadata meta = bpe_vocab(merges, {}, pre);
    meta.add("tokenizer.ggml.add_bos_token", false);
    const auto tokenizer = make_tokenizer(meta);
    for (int i = 0; i < 200; ++i) {
      std::string text = random_text(random, random() % 40);
      CHECK(tokenizer->decode(tokenizer->encode(text)) == text);
      text = random_bytes(random, random() % 200);
      CHECK(tokenizer->decode(tokenizer->encode(text)) == text);
      // Valid text with one broken place.
      text = random_text(random, 20);
      text.erase(random() % text.size(), 1);
      CHECK(tokenizer->decode(tokenizer->encode(text)) == text);
    }
  }
}

TEST_CASE("a word of a million bytes takes seconds at most") {
  const auto tokenizer = make_tokenizer(bpe_vocab({{"a", "a"}, {"aa", "aa"}, {"aaaa", "aaaa"}, {"b", "a"}}));
  const auto start = std::clock();
  CHECK(tokenizer->encode(std::string(1 << 20, 'a')).size() == 1 << 17);
  std::string word;
  for (int i = 0; i < 500000; ++i) word += "ba";
  CHECK(tokenizer->encode(word).size() == 500000);
  // A quadratic merge would take hours; this takes a quarter of a second.
  CHECK(std::clock() - start < 30 * CLOCKS_PER_SEC);
}
