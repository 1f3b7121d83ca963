// Damaged files: cut anywhere, with any field absurd, with random bytes. Each gives apr::Error or opens;
// nothing else may happen, and little memory may be taken.
#include <doctest/doctest.h>

#include <array>
#include <cstring>
#include <random>

#include "core/model/gguf_parse.h"
#include "core/model/gguf_writer.h"
#include "core/model/model.h"
#include "tests/base/expect_error.h"
#include "tests/base/temp_dir.h"
#include "tests/model/alloc_counter.h"
#include "tests/model/read_everything.h"
#include "tests/model/sample_model.h"

namespace {

volatile uint64_t g_sink = 0;  // so that the reads are not optimised away

struct Tally {
  int opened = 0;
  int refused = 0;
  size_t peak = 0;  // bytes
};

// True when it opened. Any exception but apr::Error fails the test.
bool try_parse(std::span<const std::byte> bytes, Tally& tally) {
  apr_test::reset_peak();
  bool opened = false;
  try {
    const apr::GgufPart part = apr::parse_gguf(bytes, "damaged.gguf");
    opened = true;
    g_sink = g_sink + apr_test::read_everything(part, bytes);
  } catch (const apr::Error& error) {
    const std::string_view text(error.what());
    // Every refusal says which file, and nothing in it can disturb a terminal.
    if (!text.starts_with("damaged.gguf: ")) FAIL_CHECK("an error without the file's name: " << text);
    for (const char c : text) {
      if (static_cast<unsigned char>(c) < 0x20) FAIL_CHECK("a control character in: " << text);
    }
  }
  tally.peak = std::max(tally.peak, apr_test::peak_since_reset());
  ++(opened ? tally.opened : tally.refused);
  return opened;
}

void check_memory(const Tally& tally, size_t file_bytes) {
  MESSAGE(tally.refused << " refused, " << tally.opened << " opened; at most " << tally.peak
                        << " bytes taken for a file of " << file_bytes);
  CHECK(tally.peak < 16 * file_bytes + 65536);
}

}  // namespace

TEST_CASE("the undamaged sample opens, and the counter counts") {
  const auto file = apr_test::sample_file();
  Tally tally;
  CHECK(try_parse(file, tally));
  CHECK(tally.peak > 1000);
  apr_test::reset_peak();
  { const std::vector<char> big(1 << 20); }
  CHECK(apr_test::peak_since_reset() >= 1 << 20);
}

TEST_CASE("a file cut at any byte is refused") {
  const auto file = apr_test::sample_file();
  const size_t header = apr::gguf_header(apr_test::sample_metadata(), apr_test::sample_tensors()).size();
  const apr::GgufPart whole = apr::parse_gguf(file, "sample");
  const apr::Tensor& last = whole.tensors.back();
  const auto end = static_cast<size_t>(last.data - file.data()) + last.bytes;
  REQUIRE(end > header);
  Tally tally;
  for (size_t length = 0; length < end; ++length) {
    // A copy of exact size, so that a sanitizer sees a read past the end.
    const std::vector<std::byte> cut(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(length));
    CAPTURE(length);
    CHECK_FALSE(try_parse(cut, tally));
  }
  CHECK(try_parse(std::span(file).first(end), tally));  // only padding is missing
  check_memory(tally, file.size());
}

TEST_CASE("any field may hold any absurd value") {
  const auto file = apr_test::sample_file();
  const size_t header = apr::gguf_header(apr_test::sample_metadata(), apr_test::sample_tensors()).size();
  const std::array<uint64_t, 20> absurd{0,
                                        1,
                                        7,
                                        0x7F,
                                        0xFF,
                                        0x7FFF,
                                        0xFFFF,
                                        0x7FFFFFFF,
                                        0x80000000,
                                        0xA9800000,
                                        0xA9800FFF,
                                        0xFFFFFFFF,
                                        0x100000000,
                                        uint64_t{1} << 40,
                                        uint64_t{1} << 58,
                                        uint64_t{1} << 61,
                                        (uint64_t{1} << 63) - 1,
                                        uint64_t{1} << 63,
                                        UINT64_MAX - 31,
                                        UINT64_MAX};
  Tally tally;
  for (size_t at = 0; at < header; ++at) {
    for (const uint64_t value : absurd) {
      for (const size_t width : {1, 4, 8}) {
        if (at + width > header || (width < 8 && value >> (8 * width) != 0)) continue;
        auto damaged = file;
        std::memcpy(damaged.data() + at, &value, width);
        try_parse(damaged, tally);
      }
    }
  }
  CHECK(tally.refused > 1000);
  CHECK(tally.opened > 100);  // a changed value of some key is no damage
  check_memory(tally, file.size());
}

TEST_CASE("random damage with a fixed seed") {
  const auto file = apr_test::sample_file();
  const size_t header = apr::gguf_header(apr_test::sample_metadata(), apr_test::sample_tensors()).size();
  std::mt19937_64 random(20240607);
  Tally tally;
  for (int round = 0; round < 60000; ++round) {
    auto damaged = file;
    const uint64_t changes = 1 + random() % 8;
    for (uint64_t i = 0; i < changes; ++i) {
      const size_t at = random() % header;
      if (random() % 2 == 0)
        damaged[at] = static_cast<std::byte>(random());
      else
        damaged[at] ^= static_cast<std::byte>(1U << (random() % 8));
    }
    if (random() % 8 == 0) damaged.resize(1 + random() % damaged.size());
    // A piece moved elsewhere makes fields of one kind stand where another is expected.
    if (random() % 8 == 0 && damaged.size() > 128) {
      const size_t from = random() % (damaged.size() - 64);
      const size_t to = random() % (damaged.size() - 64);
      std::memmove(damaged.data() + to, damaged.data() + from, random() % 64);
    }
    try_parse(damaged, tally);
  }
  check_memory(tally, file.size());
}

TEST_CASE("damaged files on disk give one clear error") {
  const apr_test::TempDir dir;
  const auto file = apr_test::sample_file();
  const std::string_view content(reinterpret_cast<const char*>(file.data()), file.size());
  CHECK(apr::open_gguf(dir.write("whole.gguf", content)).tensors.size() == 6);
  for (size_t length = 1; length < file.size() - 64; length += 37) {
    const std::string path = dir.write("cut.gguf", content.substr(0, length));
    const std::string message = apr_test::error_of([&] { return apr::open_gguf(path); });
    CAPTURE(length);
    CHECK_HAS(message, "cut.gguf: ");
  }
}

TEST_CASE("a false count in a large file takes neither its weights for names nor memory") {
  const apr_test::TempDir dir;
  // 8 GiB that occupy no disk; a string array that claims to fill them.
  std::string head = "GGUF";
  const auto put = [&](auto value) { head.append(reinterpret_cast<const char*>(&value), sizeof value); };
  put(uint32_t{3});
  put(uint64_t{0});
  put(uint64_t{1});
  put(uint64_t{1});
  head += "k";
  put(uint32_t{9});
  put(uint32_t{8});
  put(uint64_t{1} << 29);
  const std::string path = dir.write("sparse.gguf", head);
  std::filesystem::resize_file(path, uint64_t{8} << 30);
  apr_test::reset_peak();
  CHECK_HAS(apr_test::error_of([&] { return apr::open_gguf(path); }),
            "sparse.gguf: the value of metadata key 'k' (536870912 elements of at least 8 bytes) at byte 49 "
            "runs past 128 MiB of header");
  CHECK(apr_test::peak_since_reset() < 65536);
}
