#include "core/text/tokenizer.h"

#include <doctest/doctest.h>

#include "core/text/special_matcher.h"
#include "tests/text/vocabs.h"

using namespace apr;
using namespace apr_test;

namespace {

using Ids = std::vector<int32_t>;

}  // namespace

TEST_CASE("special texts are found leftmost first, and of those the longest") {
  SpecialMatcher matcher;
  CHECK(matcher.empty());
  CHECK(matcher.find("abc", 0).id == -1);
  matcher.add("<a>", 1);
  matcher.add("<a>>", 2);
  matcher.add("a>>x", 3);
  matcher.add("\xFF", 4);
  CHECK_FALSE(matcher.empty());
  const auto found = [&](std::string_view text, size_t from) {
    const SpecialMatcher::Match m = matcher.find(text, from);
    return std::vector<int64_t>{static_cast<int64_t>(m.begin), static_cast<int64_t>(m.end), m.id};
  };
  CHECK(found("x<a>y", 0) == std::vector<int64_t>{1, 4, 1});
  CHECK(found("<a>>x", 0) == std::vector<int64_t>{0, 4, 2});
  CHECK(found("<a>>x", 1) == std::vector<int64_t>{1, 5, 3});
  CHECK(found("<a<a>", 0) == std::vector<int64_t>{2, 5, 1});
  CHECK(found("<a", 0) == std::vector<int64_t>{2, 2, -1});
  CHECK(found("\xFF", 0) == std::vector<int64_t>{0, 1, 4});
  CHECK(found("<a>", 3) == std::vector<int64_t>{3, 3, -1});
}

TEST_CASE("BOS and EOS come where the model and the caller want them") {
  Metadata meta = bpe_vocab({}, {{"<bos>", 3}, {"<eos>", 3}});
  meta.add("tokenizer.ggml.bos_token_id", uint64_t{256});
  meta.add("tokenizer.ggml.eos_token_id", uint64_t{257});
  CHECK(make_tokenizer(meta)->encode("a", {.add_bos = true, .add_eos = true}) == Ids{'a'});
  meta.add("tokenizer.ggml.add_bos_token", true);
  meta.add("tokenizer.ggml.add_eos_token", true);
  const auto tokenizer = make_tokenizer(meta);
  CHECK(tokenizer->encode("a") == Ids{256, 'a'});
  CHECK(tokenizer->encode("a", {.add_bos = true, .add_eos = true}) == Ids{256, 'a', 257});
  CHECK(tokenizer->encode("a", {.add_bos = false, .add_eos = true}) == Ids{'a', 257});
  CHECK(tokenizer->encode("", {.add_bos = true, .add_eos = true}) == Ids{256, 257});
  CHECK(tokenizer->encode("<bos>", {.add_bos = false}) == Ids{'<', 'b', 'o', 's', '>'});
}

TEST_CASE("user-defined tokens are found in any text, control tokens in special text only") {
  const auto tokenizer =
      make_tokenizer(bpe_vocab({{" ", " "}}, {{"    ", 4}, {"<tool>", 4}, {"<end>", 3}, {"<unk>", 2}}));
  const int32_t spaces = 257, tool = 258, end = 259, unk = 260;
  CHECK(tokenizer->encode("x     <tool>") == Ids{'x', spaces, ' ', tool});
  CHECK(tokenizer->encode("<end><tool>", {.parse_special = true}) == Ids{end, tool});
  CHECK(tokenizer->encode("<unk>", {.parse_special = true}) == Ids{unk});
  CHECK(tokenizer->encode("<end>").size() == 5);
  const std::vector<TextPiece> pieces{
      {"a<end>b", true}, {"c<end>", false}, {"<end>", true}, {"", false}, {"d", true}};
  CHECK(tokenizer->encode(pieces) == Ids{'a', end, 'b', 'c', '<', 'e', 'n', 'd', '>', end, 'd'});
  // A control token's text that only comes together where two pieces meet is text.
  const std::vector<TextPiece> split{{"<en", true}, {"d>", false}};
  CHECK(tokenizer->encode(split).size() == 5);
  CHECK(tokenizer->encode(std::vector<TextPiece>{}).empty());
}
