// Kept log-probabilities: read back bit for bit, and refused when damaged or of something else.
#include <doctest/doctest.h>

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <numeric>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/eval/reference_file.h"

using namespace apr;

TEST_CASE("a reference file") {
  namespace fs = std::filesystem;
  const fs::path folder = fs::temp_directory_path() / ("apr-eval-reference-" + std::to_string(::getpid()));
  fs::create_directory(folder);
  const std::string path = (folder / "x.logp").string();
  std::vector<int32_t> tokens(50);
  std::iota(tokens.begin(), tokens.end(), 0);
  WindowOptions options;
  options.ctx = 8;
  const Windows windows = cut_windows(tokens, 1, options);
  constexpr uint32_t kVocab = 33;
  ReferenceHead head = reference_head(windows, kVocab);
  head.model = "a.gguf", head.model_sha256 = "1234", head.vocab_sha256 = "5678";
  std::vector<float> rows(windows.total() * kVocab);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = -0.37f * static_cast<float>(i % 101);
  {
    ReferenceWriter writer(path, head);
    writer.write({rows.data(), 10 * kVocab});
    CHECK_THROWS_WITH_AS(writer.commit(), doctest::Contains("missing"), Error);
  }
  CHECK_FALSE(fs::exists(path));
  {
    ReferenceWriter writer(path, head);
    writer.write({rows.data(), 10 * kVocab});
    writer.write({rows.data() + 10 * kVocab, rows.size() - 10 * kVocab});
    writer.commit();
  }
  REQUIRE(ReferenceFile::is_one(path));
  {
    const ReferenceFile file(path);
    CHECK(file.head().model == "a.gguf");
    const auto back = file.rows(5, 3);
    CHECK(std::equal(back.begin(), back.end(), rows.begin() + 5 * kVocab));
    CHECK_NOTHROW(file.check(head));
    ReferenceHead wanted = head;
    wanted.windows -= 1;
    CHECK_NOTHROW(file.check(wanted));
    const auto refused = [&](auto change, const char* why) {
      ReferenceHead other = head;
      other.model = "b.gguf";
      change(other);
      CHECK_THROWS_WITH_AS(file.check(other), doctest::Contains(why), Error);
    };
    refused([](ReferenceHead& h) { h.windows += 1; }, "windows");
    refused([](ReferenceHead& h) { h.vocab_sha256 = "9"; }, "b.gguf");
    refused([](ReferenceHead& h) { h.n_vocab = 34; }, "different vocabularies");
    refused([](ReferenceHead& h) { h.tokens_sha256 = "9"; }, "another text");
    refused([](ReferenceHead& h) { h.stride = 4; }, "--stride 8");
  }
  std::ifstream in(path, std::ios::binary);
  const std::string whole((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  for (size_t at = 0; at < whole.size(); at += whole.size() / 97) {
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ 4);
    for (const std::string& bytes : {changed, whole.substr(0, at)}) {
      std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
      CHECK_THROWS_WITH_AS(ReferenceFile{path}, doctest::Contains(path.c_str()), Error);
    }
  }
  fs::remove_all(folder);
}
