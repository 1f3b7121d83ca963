// Kernels that decode tiles of rows, derived from codecs of every shape that the contract allows: run lengths and positions,
// group sizes, parts that are no whole words, tables, offsets, numbers of every width. The conformance test judges them.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <random>

#include "apr/format.hpp"
#include "core/conformance/format_checks.h"
#include "core/dispatch/isa.h"
#include "formats_under_test.h"

// Every case has the same text for GPUs, which is compiled elsewhere: here the CPU's kernels are judged.
namespace {

using namespace apr;

// Sixteen columns of four bits to a byte scale, the second half's offsets too; a part of 9 bytes.
struct Short {
  static constexpr int kBlock = 16, kBytes = 9, kParts[] = {9}, kAlign = 1, kGroup = 16, kRuns = 4, kRun = 4;
  static constexpr bool kInteger = true, kOffset = true;
  APR_FN static constexpr int col(int, int run) { return 4 * run; }
  struct Raw {
    uint8_t byte[9];
  };
  APR_FN static Raw load(const auto& block, int) {
    Raw raw;
    for (int i = 0; i < 9; ++i) load_part<0>(block, i, raw.byte[i]);
    return raw;
  }
  APR_FN static void decode(const Raw& raw, int, IntChunk<kRuns, kRun>& out) {
    for (int r = 0; r < kRuns; ++r) {
      const uint32_t bytes = raw.byte[1 + 2 * r] | static_cast<uint32_t>(raw.byte[2 + 2 * r]) << 8;
      out.q[r][0] = (bytes & 15u) | (bytes & 0xf0u) << 4 | (bytes & 0xf00u) << 8 | (bytes & 0xf000u) << 12;
      out.scale[r] = static_cast<float>(raw.byte[0]) * 0.0078125f;
      out.offset[r] = mul(out.scale[r], -7.5f);
    }
  }
  static void pack(const int* level, uint8_t* block) {
    for (int i = 0; i < 16; i += 2) block[1 + i / 2] = static_cast<uint8_t>(level[i] | level[i + 1] << 4);
  }
  static constexpr int kLevels = 16;
  static constexpr float kMiddle = 7.5f, kStep = 0.0078125f;
};

// Runs of 64 columns, wider than a block of activations; groups of 64; signed bytes as they are; words of 64 bits.
struct Wide {
  static constexpr int kBlock = 128, kBytes = 136, kParts[] = {4, 128, 4}, kAlign = 4, kGroup = 64, kRuns = 1,
                       kRun = 64;
  static constexpr bool kInteger = true, kOffset = false;
  APR_FN static constexpr int col(int chunk, int) { return 64 * (1 - chunk); }  // and backwards
  struct Raw {
    uint64_t q[8];
    uint8_t scale;
  };
  APR_FN static Raw load(const auto& block, int chunk) {
    Raw raw;
    for (int i = 0; i < 8; ++i) load_part<1>(block, 64 * (1 - chunk) + 8 * i, raw.q[i]);
    load_part<0>(block, 1 - chunk, raw.scale);
    return raw;
  }
  APR_FN static void decode(const Raw& raw, int, IntChunk<kRuns, kRun>& out) {
    for (int i = 0; i < 16; ++i)
      out.q[0][i] = static_cast<uint32_t>(raw.q[i / 2] >> (32 * (i % 2))) ^ 0x80808080u;
    out.scale[0] = static_cast<float>(raw.scale) * 0.00048828125f;
    out.offset[0] = 0.0f;
  }
  static void pack(const int* level, uint8_t* block) {
    for (int i = 0; i < 128; ++i) block[4 + i] = static_cast<uint8_t>(level[i]);
  }
  static constexpr int kLevels = 256;
  static constexpr float kMiddle = 128.0f, kStep = 0.00048828125f;
};

// A table, and what the quantiser knows of its values.
struct SixteenLevels {
  static constexpr int kTable[16] = {-120, -104, -88, -72, -56, -40, -24, -8,
                                     8,    24,   40,  56,  72,  88,  104, 120};
  static constexpr int kLevels = 16;
  static constexpr float kMiddle = 7.5f, kStep = 0.0078125f;
};

// A table, in runs of 20 columns that begin at 0, 20, 40, 60 and cross blocks of activations; groups of 160 columns.
struct Crossing : SixteenLevels {
  static constexpr int kBlock = 160, kBytes = 84, kParts[] = {1, 3, 80}, kAlign = 4, kGroup = 160, kRuns = 2,
                       kRun = 20;
  static constexpr bool kInteger = true, kOffset = false;
  APR_FN static constexpr int col(int chunk, int run) { return 40 * chunk + 20 * run; }
  struct Raw {
    uint32_t q[5];
    uint8_t scale;
  };
  APR_FN static Raw load(const auto& block, int chunk) {
    Raw raw;
    for (int i = 0; i < 5; ++i) load_part<2>(block, 20 * chunk + 4 * i, raw.q[i]);
    load_part<0>(block, 0, raw.scale);
    return raw;
  }
  APR_FN static void decode(const Raw& raw, int, IntChunk<kRuns, kRun>& out) {
    for (int r = 0; r < kRuns; ++r) {
      for (int i = 0; i < 5; ++i) out.q[r][i] = (raw.q[i] >> (4 * r)) & 0x0f0f0f0fu;
      out.scale[r] = static_cast<float>(raw.scale) * 0.00048828125f;
      out.offset[r] = 0.0f;
    }
  }
  static void pack(const int* level, uint8_t* block) {
    for (int i = 0; i < 80; ++i)
      block[4 + i] =
          static_cast<uint8_t>(level[i / 20 * 40 + i % 20] | level[i / 20 * 40 + 20 + i % 20] << 4);
  }
};

// A table whose indices come as nibbles, in runs of 24 columns.
struct Nibbles : SixteenLevels {
  static constexpr int kBlock = 96, kBytes = 52, kParts[] = {4, 48}, kAlign = 4, kGroup = 96, kRuns = 2,
                       kRun = 24;
  static constexpr bool kInteger = true, kOffset = false, kNibbles = true;
  APR_FN static constexpr int col(int chunk, int run) { return 48 * chunk + 24 * run; }
  struct Raw {
    uint32_t q[6];
    uint8_t scale;
  };
  APR_FN static Raw load(const auto& block, int chunk) {
    Raw raw;
    for (int i = 0; i < 6; ++i) load_part<1>(block, 24 * chunk + 4 * i, raw.q[i]);
    load_part<0>(block, 0, raw.scale);
    return raw;
  }
  APR_FN static void decode(const Raw& raw, int, IntChunk<kRuns, kRun>& out) {
    for (int r = 0; r < kRuns; ++r) {
      for (int i = 0; i < 3; ++i) out.q[r][i] = raw.q[3 * r + i];
      out.scale[r] = static_cast<float>(raw.scale) * 0.00048828125f;
      out.offset[r] = 0.0f;
    }
  }
  static void pack(const int* level, uint8_t* block) {
    for (int i = 0; i < 48; ++i) block[4 + i] = static_cast<uint8_t>(level[2 * i] | level[2 * i + 1] << 4);
  }
};

// The quantiser that all of them share: kLevels values, kStep * byte apart, about zero. One scale a block.
template <class B, const char* kText>
struct Definition {
  using Codec = InParts<B>;
  static constexpr const char* kName = kText;
  static constexpr const char* kDescription = "a shape of the contract";
  static constexpr const char* kCppType = "unused";
  static constexpr const char* kSource = "";
  static constexpr int kGgufType = -1;
  static void quantize(const float* x, const float*, uint8_t* block) {
    float greatest = 0;
    for (int i = 0; i < B::kBlock; ++i) greatest = std::fmax(greatest, std::fabs(x[i]));
    const float scale = std::fmin(255.0f, std::ceil(greatest / (B::kMiddle * B::kStep)));
    std::memset(block, 0, B::kBytes);
    int level[B::kBlock];
    for (int i = 0; i < B::kBlock; ++i)
      level[i] = static_cast<int>(std::fmin(
          B::kLevels - 1.0f,
          std::fmax(0.0f, std::nearbyint((scale > 0 ? x[i] / (scale * B::kStep) : 0) + B::kMiddle))));
    B::pack(level, block);
    for (int i = 0; i < B::kBlock / B::kGroup; ++i) block[i] = static_cast<uint8_t>(scale);
  }
};

struct Judge : conformance::Listener {
  std::map<std::string, int> passed;
  void begins(const std::string&, const std::string&) override {}
  void ends(const conformance::Result& r) override {
    CHECK_MESSAGE(r.finding.verdict != conformance::Verdict::Fail, r.group, ", ", r.check, ": ",
                  r.finding.detail);
    passed[r.check] += r.finding.verdict == conformance::Verdict::Pass;
  }
};

constexpr char kShort[] = "test.short", kWide[] = "test.wide", kCrossing[] = "test.crossing",
               kNibbles[] = "test.nibbles";
constexpr const apr_quant_format* kShapes[] = {
    &Format<Definition<Short, kShort>>::kTable, &Format<Definition<Wide, kWide>>::kTable,
    &Format<Definition<Crossing, kCrossing>>::kTable, &Format<Definition<Nibbles, kNibbles>>::kTable};

}  // namespace

TEST_CASE("derived kernels of every shape of codec") {
  for (const apr_quant_format* f : kShapes) {
    // The reference means what the quantiser wrote.
    test::Random random(3);
    const uint64_t k = 4 * f->block_elements;
    std::vector<float> x(3 * k), back(x.size());
    for (float& v : x) v = std::normal_distribution<float>()(random);
    std::vector<uint8_t> rows(3 * test::row_bytes(*f, k));
    test::Message message;
    REQUIRE(f->quantize(x.data(), 3, k, nullptr, rows.data(), &message) == APR_OK);
    f->dequantize(rows.data(), 3, k, back.data());
    double error = 0, size = 0;
    for (size_t i = 0; i < x.size(); ++i) error += std::pow(x[i] - back[i], 2), size += std::pow(x[i], 2);
    CHECK_MESSAGE(error < 0.02 * size, std::string(f->name));

    Judge judge;
    conformance::Recorder recorder(judge, f->name);
    conformance::check_kernels(*f, recorder);
    for (const apr_cpu_kernels* set : test::runnable(*f)) {
      const std::string isa(name(set->isa));
      CHECK(judge.passed["gemv_int " + isa] == 1);
      CHECK(judge.passed["unpack_rows " + isa] == (set->isa != APR_ISA_PORTABLE));
    }
  }
}
