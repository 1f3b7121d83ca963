// Models opened from files, and what opening costs.
#include <doctest/doctest.h>
#include <sys/resource.h>

#include <algorithm>

#include "core/base/sha256.h"
#include "core/model/gguf_parse.h"
#include "core/model/model.h"
#include "tests/base/expect_error.h"
#include "tests/base/temp_dir.h"
#include "tests/base/timing.h"
#include "tests/model/raw_gguf.h"

using apr::GgufPart;
using namespace apr_test;

TEST_CASE("a model from a file: look-ups, totals and hash") {
  const TempDir dir;
  const std::string content = two_tensors().bytes();
  const std::string path = dir.write("m.gguf", content);
  const apr::Model model = apr::open_gguf(path);
  CHECK(model.files.size() == 1);
  CHECK(model.meta.origin() == path);
  CHECK(model.find("b.weight")->bytes == 288);
  CHECK(model.find("c") == nullptr);
  CHECK(&model.require("a") == model.find("a"));
  CHECK_HAS(error_of([&] { return model.require("blk.9.attn_q.weight").bytes; }),
            "m.gguf: tensor 'blk.9.attn_q.weight' is missing among the file's 2 tensors");
  CHECK(model.weight_bytes() == 768 + 288);
  CHECK(model.parameters() == 192 + 512);
  CHECK(model.sha256() == apr::sha256_file(path));
  const auto data = content.size() - (768 + 288);
  CHECK(std::memcmp(model.find("b.weight")->data, content.data() + data + 768, 288) == 0);
  CHECK_HAS(error_of([&] { return apr::open_gguf(dir / "x.gguf"); }), "x.gguf: no such file");
}

TEST_CASE("a model outlives the moves that a caller makes") {
  const TempDir dir;
  apr::Model model = apr::open_gguf(dir.write("m.gguf", two_tensors().bytes()));
  const apr::Model moved = std::move(model);
  CHECK(static_cast<unsigned>(moved.find("a")->data[5]) == 5);
}

TEST_CASE("opening a model does not touch its weights") {
  const TempDir dir;
  RawGguf raw;
  raw.tensors = {{"big", {1 << 20, 1 << 10}, 0, 0}};  // 4 GiB of f32, which occupy no disk
  const std::string path = dir.write("big.gguf", raw.header());
  std::filesystem::resize_file(path, (raw.header().size() + 31) / 32 * 32 + (uint64_t{4} << 30));
  const auto page_faults = [] {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt + usage.ru_majflt;
  };
  const long before = page_faults();
  const apr::Model model = apr::open_gguf(path);
  const long faults = page_faults() - before;
  CHECK(model.weight_bytes() == uint64_t{4} << 30);
  MESSAGE(faults << " page faults");
  CHECK(faults < 200);  // the 4 GiB are a million pages; a sanitizer's own memory takes some
}

TEST_CASE("a vocabulary of 150k tokens and 280k merges loads in well under 0.2 s") {
  RawGguf raw;
  Bytes tokens;
  Bytes merges;
  Bytes scores;
  for (int i = 0; i < 150000; ++i) {
    tokens.str("token" + std::to_string(i));
    scores.put(-static_cast<float>(i));
  }
  for (int i = 0; i < 280000; ++i) merges.str("left" + std::to_string(i) + " right" + std::to_string(i));
  raw.keys = {array_key("tokenizer.ggml.tokens", 8, 150000, tokens.out),
              array_key("tokenizer.ggml.scores", 6, 150000, scores.out),
              array_key("tokenizer.ggml.merges", 8, 280000, merges.out)};
  const std::string bytes = raw.bytes();
  double best = 1e9;
  for (int round = 0; round < 5; ++round) {
    const double start = apr_test::cpu_seconds();
    const GgufPart part = apr::parse_gguf(as_bytes(bytes), "test.gguf");
    best = std::min(best, apr_test::cpu_seconds() - start);
    CHECK(part.meta.get_strings("tokenizer.ggml.merges").size() == 280000);
  }
  MESSAGE("parsed in " << best * 1e3 << " ms");
  if (apr_test::kSpeedCounts) CHECK(best < 0.2);
}

TEST_CASE("many keys do not make the reader quadratic") {
  RawGguf raw;
  for (int i = 0; i < 200000; ++i) raw.keys.push_back({"k" + std::to_string(i), 7, Bytes().u8(1).out});
  const std::string bytes = raw.bytes();
  const double start = apr_test::cpu_seconds();
  CHECK(apr::parse_gguf(as_bytes(bytes), "test.gguf").meta.entries().size() == 200000);
  // Linear takes about 0.1 s; comparing every pair of keys takes minutes.
  CHECK(apr_test::cpu_seconds() - start < 10);
}
