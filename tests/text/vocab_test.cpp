#include "core/text/vocab.h"

#include <doctest/doctest.h>

#include <limits>

#include "core/text/tokenizer.h"
#include "tests/base/expect_error.h"
#include "tests/text/vocabs.h"

using namespace apr;
using namespace apr_test;

namespace {

std::string load_error(const Metadata& meta) {
  return error_of([&] { return make_tokenizer(meta)->vocab_size(); });
}

}  // namespace

TEST_CASE("a SentencePiece vocabulary is read with its defaults") {
  const Vocab vocab = load_vocab(spm_vocab({{"▁a", 1, -1}, {"<|im_end|>", 3}, {"b", 5}}));
  CHECK(vocab.kind == VocabKind::Spm);
  CHECK(vocab.size() == 262);
  CHECK(vocab.bos == 1);
  CHECK(vocab.eos == 2);
  CHECK(vocab.unk == 0);
  CHECK_FALSE(vocab.eot.has_value());
  CHECK(vocab.add_bos);
  CHECK_FALSE(vocab.add_eos);
  CHECK(vocab.space_prefix == SpacePrefix::Pieces);
  CHECK(vocab.bytes[259] == " a");
  CHECK(vocab.bytes[3 + 0x0A] == "\n");
  CHECK(vocab.bytes[3] == std::string(1, '\0'));
  CHECK(vocab.bytes[261] == "");  // unused
  CHECK(vocab.eog[2] == 1);
  CHECK(vocab.eog[260] == 1);
  CHECK(vocab.eog[1] == 0);
  CHECK(vocab.warnings.empty());
}

TEST_CASE("SentencePiece ids that the file leaves out are found by their texts") {
  Metadata meta = spm_vocab({});
  for (const char* key :
       {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id", "tokenizer.ggml.unknown_token_id"}) {
    meta.erase(key);
  }
  const Vocab vocab = load_vocab(meta);
  CHECK(vocab.bos == 1);
  CHECK(vocab.eos == 2);
  CHECK(vocab.unk == 0);
}

TEST_CASE("keys override the defaults") {
  Metadata meta = spm_vocab({});
  meta.add("tokenizer.ggml.add_bos_token", false);
  meta.add("tokenizer.ggml.add_eos_token", true);
  meta.add("tokenizer.ggml.add_space_prefix", false);
  meta.add("tokenizer.ggml.eot_token_id", uint64_t{7});
  meta.add("tokenizer.ggml.eom_token_id", uint64_t{8});
  meta.add("tokenizer.ggml.padding_token_id", uint64_t{0});
  meta.add("tokenizer.chat_template", std::string("{{ x }}"));
  const Vocab vocab = load_vocab(meta);
  CHECK_FALSE(vocab.add_bos);
  CHECK(vocab.add_eos);
  CHECK(vocab.space_prefix == SpacePrefix::None);
  CHECK(vocab.eog[7] == 1);
  CHECK(vocab.eog[8] == 1);
  CHECK(vocab.pad == 0);
  CHECK(vocab.chat_template == "{{ x }}");
}

TEST_CASE("byte-level BPE's letters become bytes") {
  std::string out = "x";
  for (unsigned b = 0; b < 256; ++b) {
    REQUIRE(append_unlettered(letter(b), out));
    CHECK(static_cast<uint8_t>(out.back()) == b);
  }
  CHECK(out.size() == 257);
  CHECK_FALSE(append_unlettered("a b", out));
  CHECK_FALSE(append_unlettered("ń", out));  // U+0144, the first that is no letter
  CHECK_FALSE(append_unlettered("<｜x｜>", out));
  CHECK_FALSE(append_unlettered("\xC4", out));
  CHECK_FALSE(append_unlettered("\xFF", out));
  CHECK(out.size() == 257);

  const Vocab vocab = load_vocab(bpe_vocab({{" ", "t"}}, {{"<｜User｜>"}, {"  ", 4}, {"<|eot_id|>", 3}}));
  CHECK(vocab.bytes[256] == " t");
  CHECK(vocab.bytes[257] == "<｜User｜>");  // a word added in plain text
  CHECK(vocab.bytes[258] == "  ");
  CHECK(vocab.eog[259] == 1);
  CHECK_FALSE(vocab.add_bos);
}

TEST_CASE("the pre-tokenizer's name decides what a missing key means") {
  Metadata meta = bpe_vocab({}, {{"<|begin|>", 3}}, "llama-bpe");
  meta.add("tokenizer.ggml.bos_token_id", uint64_t{256});
  CHECK(load_vocab(meta).add_bos);
  CHECK(load_vocab(meta).ignore_merges);
  meta.erase("tokenizer.ggml.bos_token_id");
  const Vocab vocab = load_vocab(meta);
  CHECK_FALSE(vocab.add_bos);
  REQUIRE(vocab.warnings.size() == 1);
  CHECK_HAS(vocab.warnings[0], "begins without a BOS token");

  meta.erase("tokenizer.ggml.pre");
  const Vocab unnamed = load_vocab(meta);
  CHECK(unnamed.pre == "default");
  REQUIRE(unnamed.warnings.size() == 1);
  CHECK_HAS(unnamed.warnings[0], "tokenizer.ggml.pre is missing");
}

TEST_CASE("what ends generation") {
  const auto ends = [](std::vector<Token> extra, const char* text) {
    const auto tokenizer = make_tokenizer(bpe_vocab({}, extra));
    for (int32_t id = 0; id < tokenizer->vocab_size(); ++id) {
      if (tokenizer->token_text(id) == text) return tokenizer->eog(id);
    }
    FAIL("no such token");
    return false;
  };
  CHECK(ends({{"<|im_end|>", 3}}, "<|im_end|>"));
  CHECK(ends({{"<end_of_turn>", 3}}, "<end_of_turn>"));
  CHECK_FALSE(ends({{"<|im_start|>", 3}}, "<|im_start|>"));
  CHECK_FALSE(ends({{"</s>", 1}}, "</s>"));  // an ordinary word of a model that knows HTML
  // Files that mark it as user-defined: it becomes a control token, with a warning.
  const Vocab vocab = load_vocab(bpe_vocab({}, {{"<|end|>", 4}}));
  CHECK(vocab.eog[256] == 1);
  CHECK(vocab.type[256] == TokenType::Control);
  CHECK(vocab.warnings.size() == 1);
  // OpenAI's harmony: <|end|> is in the middle of an answer.
  const std::vector<Token> harmony{{"<|end|>", 3}, {"<|return|>", 3}, {"<|call|>", 3}};
  CHECK_FALSE(ends(harmony, "<|end|>"));
  CHECK(ends(harmony, "<|return|>"));
}

TEST_CASE("files without token types still know their special tokens") {
  Metadata meta = spm_vocab({{"a", 1, -1}});
  meta.erase("tokenizer.ggml.token_type");
  const Vocab vocab = load_vocab(meta);
  CHECK(vocab.type[3 + 'A'] == TokenType::Byte);
  CHECK(vocab.type[2] == TokenType::Control);  // </s>, by its text
  CHECK(vocab.eog[2] == 1);
  CHECK(vocab.warnings.size() == 2);
}

TEST_CASE("errors name the key, the value and the file") {
  Metadata meta("bad.gguf");
  CHECK_HAS(load_error(meta), "tokenizer.ggml.model");
  const auto with_model = [](const char* model) {
    Metadata m("bad.gguf");
    m.add("tokenizer.ggml.model", std::string(model));
    return m;
  };
  CHECK_HAS(load_error(with_model("bert")),
            "bad.gguf: tokenizer.ggml.model 'bert' is WordPiece, which is not supported");
  CHECK_HAS(load_error(with_model("t5")), "unigram, which is not supported");
  CHECK_HAS(load_error(with_model("rwkv")), "RWKV's, which is not supported");
  CHECK_HAS(load_error(with_model("x\x1b[31m")), "'x\\x1B[31m' is unknown");
  CHECK_HAS(load_error(with_model("llama")), "tokenizer.ggml.tokens");

  const std::string unknown_pre = load_error(bpe_vocab({}, {}, "no-such"));
  CHECK_HAS(unknown_pre, "test.gguf: tokenizer.ggml.pre 'no-such' is not a known pre-tokenizer");
  CHECK_HAS(unknown_pre, "llama-bpe");
  CHECK_HAS(unknown_pre, "qwen2");

  const auto changed = [](const char* key, MetaValue value) {
    Metadata m = spm_vocab({{"a"}, {"b"}});
    m.set(key, std::move(value));
    return load_error(m);
  };
  CHECK_HAS(changed("tokenizer.ggml.bos_token_id", uint64_t{261}),
            "tokenizer.ggml.bos_token_id is 261, but the vocabulary has 261 tokens");
  CHECK_HAS(changed("tokenizer.ggml.eos_token_id", uint64_t{4294967295}), "4294967295");
  CHECK_HAS(changed("tokenizer.ggml.eot_token_id", int64_t{-1}), "tokenizer.ggml.eot_token_id");
  CHECK_HAS(changed("tokenizer.ggml.scores", array_of(std::vector<double>{1.0})),
            "tokenizer.ggml.scores has 1 elements, tokenizer.ggml.tokens has 261");
  CHECK_HAS(changed("tokenizer.ggml.scores",
                    array_of(std::vector<double>(261, std::numeric_limits<double>::quiet_NaN()))),
            "tokenizer.ggml.scores[0] is not a number");
  CHECK_HAS(changed("tokenizer.ggml.token_type", array_of(std::vector<int64_t>(261, 7))),
            "tokenizer.ggml.token_type[0] is 7");
  CHECK_HAS(changed("tokenizer.ggml.token_type", array_of(std::vector<int64_t>(3, 1))),
            "token_type has 3 elements");
  CHECK_HAS(changed("tokenizer.ggml.token_type", array_of(std::vector<int64_t>(261, 6))),
            "token 0 '<unk>' has the type of a byte token");
  CHECK_HAS(changed("tokenizer.ggml.tokens", array_of(std::vector<std::string>{})), "has 0 elements");
  CHECK_HAS(load_error(spm_vocab({{"a"}, {"b"}, {"a"}})), "'a' twice, as tokens 259 and 261");
  CHECK(load_error(spm_vocab({{""}, {""}})) == "(no error)");  // reserved places

  Metadata no_bos = bpe_vocab({});
  no_bos.add("tokenizer.ggml.add_bos_token", true);
  CHECK_HAS(load_error(no_bos), "add_bos_token is true, but there is no tokenizer.ggml.bos_token_id");
  Metadata no_eos = bpe_vocab({});
  no_eos.add("tokenizer.ggml.add_eos_token", true);
  CHECK_HAS(load_error(no_eos), "no tokenizer.ggml.eos_token_id");

  Metadata no_merges = bpe_vocab({});
  no_merges.erase("tokenizer.ggml.merges");
  CHECK_HAS(load_error(no_merges), "tokenizer.ggml.merges");
  for (const char* line : {"ab", "", " ", "a ", " b"}) {
    no_merges.set("tokenizer.ggml.merges", array_of(std::vector<std::string>{"a b", line}));
    CHECK_HAS(load_error(no_merges), "tokenizer.ggml.merges[1]");
  }
}

TEST_CASE("odd but harmless entries are warnings") {
  Metadata meta = bpe_vocab({{"a", "b"}});
  meta.set("tokenizer.ggml.merges", array_of(std::vector<std::string>{"a b", "▁ x", "c d"}));
  meta.set("tokenizer.ggml.padding_token_id", uint64_t{4294967295});
  const auto tokenizer = make_tokenizer(meta);
  REQUIRE(tokenizer->vocab().warnings.size() == 2);
  CHECK_HAS(tokenizer->vocab().warnings[0], "padding_token_id 4294967295");
  CHECK_HAS(tokenizer->vocab().warnings[1], "1 of 3 merges");
  CHECK(tokenizer->encode("ab") == std::vector<int32_t>{256});
}

TEST_CASE("ids outside the vocabulary are errors") {
  const auto tokenizer = make_tokenizer(spm_vocab({}));
  CHECK_HAS(error_of([&] { return tokenizer->token_text(259); }), "there is no token 259: ids are 0 to 258");
  CHECK_HAS(error_of([&] { return tokenizer->eog(-1); }), "there is no token -1");
  CHECK_HAS(error_of([&] {
              return tokenizer->decode(std::vector<int32_t>{5, 1000});
            }),
            "there is no token 1000");
}
