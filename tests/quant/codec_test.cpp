// The codecs as the host compiles them, against the libraries' dequantize: every column once, every layout
// the same bits.
#include <doctest/doctest.h>

#include <cmath>
#include <ios>

#include "formats_under_test.h"
#include "plugins/quant-f16/bf16.h"
#include "plugins/quant-f16/f16.h"
#include "plugins/quant-f32/codec.h"
#include "plugins/quant-fp8/fp8.h"
#include "plugins/quant-low-k/q2_k.h"
#include "plugins/quant-low-k/q3_k.h"
#include "plugins/quant-q4-0/q4_0.h"
#include "plugins/quant-q4-0/q4_1.h"
#include "plugins/quant-q4-0/q5_0.h"
#include "plugins/quant-q4-0/q5_1.h"
#include "plugins/quant-q4-0/q8_0.h"
#include "plugins/quant-q4k/codec.h"
#include "plugins/quant-q5k/codec.h"
#include "plugins/quant-q6k/codec.h"
#include "plugins/quant-table4/iq4_nl.h"
#include "plugins/quant-table4/iq4_xs.h"
#include "plugins/quant-table4/mxfp4.h"

namespace {

using namespace apr;
using namespace apr::test;

template <class Codec>
constexpr int kChunks = Codec::kBlock / (Codec::kRuns * Codec::kRun);

template <class Codec, class Layout>
void decode_block(const Planes<Layout::kPlanes>& planes, float* w) {
  for (int c = 0; c < kChunks<Codec>; ++c) {
    const auto raw = Layout::load(planes, c);
    for (int r = 0; r < Codec::kRuns; ++r) {
      if constexpr (Codec::kInteger) {
        IntChunk<Codec::kRuns, Codec::kRun> chunk;
        Layout::decode(raw, c, chunk);
        for (int i = 0; i < Codec::kRun; ++i)
          w[Codec::col(c, r) + i] = chunk_value<Codec::kOffset>(chunk, r, i);
        if (!Codec::kOffset) CHECK(chunk.offset[r] == 0.0f);
      } else {
        FloatChunk<Codec::kRuns, Codec::kRun> chunk;
        Layout::decode(raw, c, chunk);
        for (int i = 0; i < Codec::kRun; ++i) w[Codec::col(c, r) + i] = chunk.v[r][i];
      }
    }
  }
}

void check_same(const std::string& what, const std::vector<float>& got, const std::vector<float>& wanted) {
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (same(got[i], wanted[i])) continue;
    FAIL_CHECK(what << ": value " << i << " is " << got[i] << " (" << std::hex << float_to_bits(got[i])
                    << "), dequantize gives " << wanted[i] << " (" << float_to_bits(wanted[i]) << ")");
    return;
  }
}

template <class Codec>
void check_codec(const char* name) {
  CAPTURE(std::string(name));
  const apr_quant_format* format = find_format(name);
  REQUIRE(format != nullptr);
  const apr_codec& codec = *format->codec;

  SUBCASE("columns") {
    std::vector<int> seen(Codec::kBlock);
    for (int c = 0; c < kChunks<Codec>; ++c)
      for (int r = 0; r < Codec::kRuns; ++r)
        for (int i = 0; i < Codec::kRun; ++i) {
          const int column = Codec::col(c, r) + i;
          REQUIRE(column >= 0);
          REQUIRE(column < Codec::kBlock);
          ++seen[static_cast<size_t>(column)];
        }
    for (const int times : seen) CHECK(times == 1);
  }

  SUBCASE("table") {
    CHECK(codec.block == Codec::kBlock);
    CHECK(codec.block_bytes == Codec::kBytes);
    CHECK(codec.runs == Codec::kRuns);
    CHECK(codec.run == Codec::kRun);
    CHECK(codec.kind == (Codec::kInteger ? APR_CODEC_INTEGER : APR_CODEC_FLOAT));
    CHECK(codec.layouts[0]->name == std::string("row_major"));
    CHECK(std::string(codec.source).find("struct " + std::string(codec.cpp_type).substr(5) + " ") !=
          std::string::npos);
  }

  constexpr uint64_t kBlocks = 512;
  Random random(42);
  const auto blocks = edge_blocks(*format, kBlocks * Codec::kBlock / format->block_elements, random);
  std::vector<float> wanted(kBlocks * Codec::kBlock), got(wanted.size());
  format->dequantize(blocks.data(), 1, wanted.size(), wanted.data());

  SUBCASE("row_major") {
    for (uint64_t b = 0; b < kBlocks; ++b)
      decode_block<Codec, typename Codec::RowMajor>({{blocks.data() + b * Codec::kBytes}},
                                                    got.data() + b * Codec::kBlock);
    check_same("row_major", got, wanted);
  }

  if constexpr (requires { typename Codec::Planar; }) {
    SUBCASE("planar") {
      using Layout = typename Codec::Planar;
      REQUIRE(codec.n_layouts == 2);
      const apr_layout& layout = *codec.layouts[1];
      CHECK(layout.name == std::string("planar"));
      REQUIRE(layout.n_planes == Layout::kPlanes);
      // Memory beyond each plane must stay as it was.
      std::vector<std::vector<uint8_t>> planes;
      uint8_t* pointers[APR_MAX_PLANES];
      uint64_t bytes = 0;
      for (uint32_t p = 0; p < layout.n_planes; ++p) {
        CHECK(layout.plane_bytes[p] == Layout::kPlaneBytes[p]);
        bytes += layout.plane_bytes[p];
        planes.emplace_back(kBlocks * layout.plane_bytes[p] + 64, uint8_t{0xa5});
      }
      for (uint32_t p = 0; p < layout.n_planes; ++p) pointers[p] = planes[p].data();
      CHECK(bytes * 100 <= Codec::kBytes * 104);
      layout.split(blocks.data(), kBlocks, pointers);
      for (uint32_t p = 0; p < layout.n_planes; ++p)
        for (uint64_t i = 0; i < 64; ++i) REQUIRE(planes[p][kBlocks * layout.plane_bytes[p] + i] == 0xa5);
      for (uint64_t b = 0; b < kBlocks; ++b) {
        Planes<Layout::kPlanes> block;
        for (int p = 0; p < Layout::kPlanes; ++p)
          block.p[p] =
              planes[static_cast<size_t>(p)].data() + b * static_cast<uint64_t>(Layout::kPlaneBytes[p]);
        decode_block<Codec, Layout>(block, got.data() + b * Codec::kBlock);
      }
      check_same("planar", got, wanted);
    }
  }
}

}  // namespace

TEST_CASE("the contract's bit tools") {
  Random random(1);
  for (int i = 0; i < 10000; ++i) {
    const auto v = static_cast<uint32_t>(random());
    const U4 table = {static_cast<uint32_t>(random()), static_cast<uint32_t>(random()),
                      static_cast<uint32_t>(random()), static_cast<uint32_t>(random())};
    // What a device does, in the host's words, against what the host does.
    uint32_t low, high, picked_low, picked_high;
    lookup_nibbles(v, table, low, high);
    lookup_by_picks(v, table, picked_low, picked_high);
    REQUIRE(low == picked_low);
    REQUIRE(high == picked_high);
    const uint32_t a = v & 0x7f7f7f7fu, k = table.x & 0x7f7f7f7fu, spread = spread_bits(v);
    for (int j = 0; j < 4; ++j) {
      REQUIRE(quad_byte(sub_bytes(a, k), j) == quad_byte(a, j) - quad_byte(k, j));
      REQUIRE(quad_byte(spread, j) == static_cast<int>((v >> j) & 1u));
    }
  }
  for (uint32_t h = 0; h < 65536; ++h) {
    const int exponent = static_cast<int>((h >> 10) & 31u), mantissa = static_cast<int>(h & 1023u);
    const float magnitude = exponent == 31  ? (mantissa ? NAN : INFINITY)
                            : exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -24)
                                            : std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25);
    REQUIRE(same(half_to_float(static_cast<uint16_t>(h)), h & 0x8000u ? -magnitude : magnitude));
  }
}

TEST_CASE("codec f32") { check_codec<F32>("f32"); }
TEST_CASE("codec f16") { check_codec<F16>("f16"); }
TEST_CASE("codec bf16") { check_codec<BF16>("bf16"); }
TEST_CASE("codec q4_0") { check_codec<Q4_0>("q4_0"); }
TEST_CASE("codec q4_1") { check_codec<Q4_1>("q4_1"); }
TEST_CASE("codec q5_0") { check_codec<Q5_0>("q5_0"); }
TEST_CASE("codec q5_1") { check_codec<Q5_1>("q5_1"); }
TEST_CASE("codec q8_0") { check_codec<Q8_0>("q8_0"); }
TEST_CASE("codec q4_k") { check_codec<Q4K>("q4_k"); }
TEST_CASE("codec q5_k") { check_codec<Q5K>("q5_k"); }
TEST_CASE("codec q6_k") { check_codec<Q6K>("q6_k"); }
TEST_CASE("codec q2_k") { check_codec<Q2K>("q2_k"); }
TEST_CASE("codec q3_k") { check_codec<Q3K>("q3_k"); }
TEST_CASE("codec iq4_nl") { check_codec<IQ4_NL>("iq4_nl"); }
TEST_CASE("codec iq4_xs") { check_codec<IQ4_XS>("iq4_xs"); }
TEST_CASE("codec mxfp4") { check_codec<MXFP4>("mxfp4"); }
TEST_CASE("codec f8_e4m3") { check_codec<F8_E4M3>("f8_e4m3"); }
TEST_CASE("codec f8_e5m2") { check_codec<F8_E5M2>("f8_e5m2"); }
