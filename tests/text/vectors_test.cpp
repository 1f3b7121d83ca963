// The published vectors of real vocabularies: NAME.gguf, NAME.gguf.inp (texts, separated by lines
// "__ggml_vocab_test__") and NAME.gguf.out (a line of ids for each), as llama.cpp's
// tests/test-tokenizer-0.cpp reads them: without BOS, special tokens' texts as text. All of APR_TEST_VOCAB,
// whatever is in it.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "core/model/model.h"
#include "core/text/token_stream.h"
#include "core/text/tokenizer.h"
#include "tests/text/vocabs.h"

using namespace apr;
using namespace apr_test;

namespace {

namespace fs = std::filesystem;
using Ids = std::vector<int32_t>;

// Of this process's own time, so that a busy machine changes little.
double seconds_since(std::clock_t start) {
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

std::string contents(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE_MESSAGE(file.good(), path.string());
  std::stringstream out;
  out << file.rdbuf();
  return out.str();
}

std::vector<std::string> split(const std::string& text, const std::string& separator) {
  std::vector<std::string> out;
  size_t from = 0;
  for (size_t at = text.find(separator); at != std::string::npos; at = text.find(separator, from)) {
    out.push_back(text.substr(from, at - from));
    from = at + separator.size();
  }
  out.push_back(text.substr(from));
  return out;
}

std::vector<fs::path> vocabularies() {
  std::vector<fs::path> out;
  for (const auto& entry : fs::directory_iterator(std::getenv("APR_TEST_VOCAB"))) {
    if (entry.path().extension() == ".gguf") out.push_back(entry.path());
  }
  std::sort(out.begin(), out.end());
  REQUIRE_FALSE(out.empty());
  return out;
}

struct Loaded {
  Model model;
  std::unique_ptr<Tokenizer> tokenizer;
  double seconds;  // for the tokenizer alone
};

Loaded load(const fs::path& path) {
  Loaded out{open_gguf(path.string()), nullptr, 0};
  const auto start = std::clock();
  out.tokenizer = make_tokenizer(out.model.meta);
  out.seconds = seconds_since(start);
  return out;
}

const std::string kEnglish =
    "A tokenizer turns text into numbers, and that is nearly all of it. What makes it hard is that the "
    "numbers have to be "
    "the ones the model was trained with: every space, every capital letter, and each of the 3,141 odd cases "
    "counts. "
    "People don't notice when it's right; they'll notice within a sentence when it isn't.\n\n";

}  // namespace

TEST_CASE("every published vector") {
  for (const fs::path& path : vocabularies()) {
    const fs::path inputs = path.string() + ".inp";
    const fs::path outputs = path.string() + ".out";
    if (!fs::exists(inputs) || !fs::exists(outputs)) continue;
    CAPTURE(path.string());
    const Loaded loaded = load(path);
    const std::vector<std::string> texts = split(contents(inputs), "\n__ggml_vocab_test__\n");
    const std::vector<std::string> lines = split(contents(outputs), "\n");
    REQUIRE(lines.size() >= texts.size());
    size_t passed = 0;
    for (size_t i = 0; i < texts.size(); ++i) {
      Ids expected;
      std::stringstream line(lines[i]);
      for (int32_t id; line >> id;) expected.push_back(id);
      const Ids found = loaded.tokenizer->encode(texts[i], {.add_bos = false});
      CAPTURE(texts[i]);
      CHECK(found == expected);
      passed += found == expected;
      CHECK(loaded.tokenizer->decode(found) == texts[i]);
    }
    MESSAGE(path.filename().string() << ": " << passed << " of " << texts.size() << " vectors; loaded in "
                                     << loaded.seconds * 1000 << " ms of CPU time");
    CHECK(loaded.seconds < 1);  // 0.1 s for 150k tokens
  }
}

TEST_CASE("real vocabularies: any text and any bytes survive the round trip, whole and streamed") {
  std::mt19937_64 random(31);
  for (const fs::path& path : vocabularies()) {
    CAPTURE(path.string());
    const Loaded loaded = load(path);
    for (int i = 0; i < 100; ++i) {
      const std::string text = random_text(random, random() % 200);
      const Ids ids = loaded.tokenizer->encode(text);
      CHECK(loaded.tokenizer->decode(ids) == text);
      TokenStream stream(*loaded.tokenizer);
      std::string shown;
      for (const int32_t id : ids) shown += stream.push(id);
      CHECK(shown + stream.flush() == text);
      const std::string bytes = random_bytes(random, random() % 300);
      if (bytes.find("\xE2\x96\x81") == std::string::npos) {
        CHECK(loaded.tokenizer->decode(loaded.tokenizer->encode(bytes)) == bytes);
      }
    }
  }
}

TEST_CASE("real vocabularies: speed on English, and on words of a million bytes") {
  std::string english;
  while (english.size() < 2000000) english += kEnglish;
  for (const fs::path& path : vocabularies()) {
    CAPTURE(path.string());
    const Loaded loaded = load(path);
    double best = 1e9;
    for (int i = 0; i < 3; ++i) {
      const auto start = std::clock();
      CHECK(loaded.tokenizer->encode(english).size() > english.size() / 8);
      best = std::min(best, seconds_since(start));
    }
    CHECK(static_cast<double>(english.size()) / best > 1e6);  // bytes a second; 5 to 20 MB/s
    MESSAGE(path.filename().string() << ": " << static_cast<double>(english.size()) / best / 1e6
                                     << " MB/s of English, by CPU time");
    for (const char* unit : {"a", "A", " ", "\n", "7", "!", "中", "\xFF"}) {
      CAPTURE(unit);
      std::string word;
      while (word.size() < 1000000) word += unit;
      const auto start = std::clock();
      CHECK(loaded.tokenizer->decode(loaded.tokenizer->encode(word)) == word);
      CHECK(seconds_since(start) < 10);  // half a second
    }
  }
}

int main(int argc, char** argv) {
  const char* folder = std::getenv("APR_TEST_VOCAB");
  if (!folder || !*folder) {
    std::puts(
        "skipped: APR_TEST_VOCAB names no folder of vocabularies (NAME.gguf, NAME.gguf.inp, NAME.gguf.out)");
    return 77;
  }
  return doctest::Context(argc, argv).run();
}
