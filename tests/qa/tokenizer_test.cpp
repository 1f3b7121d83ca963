// Gate tokenizer: what a faulty tokenizer loses is a failure, and what a vocabulary cannot write is none.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "core/qa/gates.h"
#include "tests/text/vocabs.h"

using namespace apr;
using namespace apr_test;

namespace {

constexpr const char* kMark = "\xE2\x96\x81";

// Three special tokens, 256 bytes and letters; more of them come from the caller.
Metadata letters_and(std::vector<Token> extra) {
  for (const char c : {'a', 'b', 'c'}) extra.push_back({std::string(1, c)});
  return spm_vocab(extra);
}

// Loses the last byte of what it encodes, or only of texts with a space.
class Faulty final : public Tokenizer {
 public:
  Faulty(const Metadata& meta, bool all)
      : Tokenizer(load_vocab(meta)), inner_(make_tokenizer(meta)), all_(all) {}

 protected:
  void encode_text(std::string_view text, bool, std::vector<int32_t>& out) const override {
    EncodeOptions options;
    options.add_bos = false;
    if (all_ || text.find(' ') != std::string_view::npos) text.remove_suffix(1);
    for (const int32_t id : inner_->encode(text, options)) out.push_back(id);
  }

 private:
  std::unique_ptr<Tokenizer> inner_;
  bool all_;
};

QaResult judged(const Metadata& meta) { return judge_tokenizer(*make_tokenizer(meta)); }

}  // namespace

TEST_CASE("a vocabulary that can write everything passes, with what was judged") {
  const QaResult result = judged(letters_and({{kMark}}));
  CHECK(result.verdict == QaVerdict::Pass);
  CHECK(result.value == 0);
  CHECK(result.text == "24 texts and 4 printable tokens of 263");
}

TEST_CASE("without a letter for the space nothing can be written, and the gate is not run") {
  std::vector<Token> made_up;
  for (int i = 259; i < 400; ++i) made_up.push_back({"t" + std::to_string(i), 1, -double(i)});
  try {
    const QaResult result = judged(spm_vocab(made_up));
    FAIL("was judged: " << result.text);
  } catch (const NotRunnable& reason) {
    CHECK(std::string(reason.what()).find("the vocabulary cannot write text") == 0);
    CHECK(std::string(reason.what()).find("none of its 400 tokens has " + std::string(kMark)) !=
          std::string::npos);
  }
  // A control token that has the letter writes no text.
  made_up.push_back({std::string("<") + kMark + ">", 3});
  CHECK_THROWS_AS(judged(spm_vocab(made_up)), NotRunnable);
}

TEST_CASE("without that letter and without a space in front, texts without spaces are judged") {
  Metadata meta = letters_and({});
  meta.add("tokenizer.ggml.add_space_prefix", false);
  const QaResult result = judged(meta);
  CHECK(result.verdict == QaVerdict::Pass);
  REQUIRE(result.details.size() == 1);
  CHECK(result.details[0].find("15 of 24 texts and 0 of 3 printable tokens were left out") == 0);
  // A tokenizer's fault shows in them.
  const QaResult faulty = judge_tokenizer(Faulty(meta, true));
  CHECK(faulty.verdict == QaVerdict::Fail);
  CHECK(faulty.text == "9 of 24 texts and 3 of 3 printable tokens do not come back as they were");
}

TEST_CASE("a tokenizer that loses text fails, texts and tokens counted apart") {
  const Metadata spm = letters_and({{kMark}});
  const QaResult result = judge_tokenizer(Faulty(spm, true));
  CHECK(result.verdict == QaVerdict::Fail);
  CHECK(result.value == 28);
  CHECK(result.text == "24 of 24 texts and 4 of 4 printable tokens do not come back as they were");
  CHECK(result.details.size() == 8);
  // Where only spaces are lost, and the vocabulary has a letter for them, that is no excuse.
  const Metadata bpe = bpe_vocab({});
  CHECK(judged(bpe).verdict == QaVerdict::Pass);
  const QaResult spaces = judge_tokenizer(Faulty(bpe, false));
  CHECK(spaces.verdict == QaVerdict::Fail);
  CHECK(spaces.text == "15 of 24 texts and 1 of 128 printable tokens do not come back as they were");
}

TEST_CASE("a vocabulary whose words alone have the letter loses lone spaces, and that is a failure") {
  const QaResult result = judged(letters_and({{std::string(kMark) + "a"}}));
  CHECK(result.verdict == QaVerdict::Fail);
  CHECK(result.text.find("texts and 3 of 4 printable tokens do not come back as they were") !=
        std::string::npos);
}
