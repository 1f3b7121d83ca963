// The codec contract's tools, as the host compiles them, against plain arithmetic.
#include <doctest/doctest.h>

#include <cmath>

#include "formats_under_test.h"

using namespace apr;
using namespace apr::test;

namespace {

// Sixteen columns of a table, eight indices in a word.
template <int kRise>
struct TableBlock {
  static constexpr int kBlock = 16, kBytes = 8, kParts[] = {8}, kAlign = 8, kGroup = 16, kRuns = 1, kRun = 16;
  static constexpr bool kInteger = true, kOffset = false, kNibbles = true;
  // Rising from negative values, falling from positive ones in each half, and of no order.
  static constexpr int kTable[16] = {kRise == 0 ? 3 : kRise * -127,
                                     kRise == 0 ? -5 : kRise * -90,
                                     kRise * -60,
                                     kRise * -45,
                                     kRise * -33,
                                     kRise * -20,
                                     kRise * -9,
                                     0,
                                     kRise == 0 ? -3 : kRise * 4,
                                     kRise * 11,
                                     kRise * 25,
                                     kRise * 40,
                                     kRise * 61,
                                     kRise * 77,
                                     kRise * 101,
                                     kRise * 127};
  struct Raw {
    uint32_t q[2];
  };
  static Raw load(const auto& block, int) {
    Raw raw;
    load_part<0>(block, 0, raw.q);
    return raw;
  }
  static void decode(const Raw& raw, int, IntChunk<kRuns, kRun>& out) {
    for (int i = 0; i < 2; ++i) out.q[0][i] = raw.q[i];
    out.scale[0] = 1.0f, out.offset[0] = 0.0f;
  }
};

template <int kRise>
void check_table(uint64_t nibbles) {
  using Codec = InParts<TableBlock<kRise>>;
  typename Codec::Raw raw{{static_cast<uint32_t>(nibbles), static_cast<uint32_t>(nibbles >> 32)}};
  IntChunk<1, 16> whole;
  Codec::Planar::decode(raw, 0, whole);
  for (int column = 0; column < 16; ++column)
    REQUIRE(quad_byte(whole.q[0][column / 4], column % 4) == Codec::kTable[nibbles >> (4 * column) & 15u]);
  if constexpr (Codec::kSplit) {
    SplitChunk<1, 16> split;
    Codec::RowMajor::decode(raw, 0, split);
    for (int column = 0; column < 16; ++column) {
      const int plus = quad_byte(split.q[0][column / 4], column % 4),
                minus = quad_byte(split.minus[0][column / 4], column % 4);
      REQUIRE(plus - minus == Codec::kTable[nibbles >> (4 * column) & 15u]);
      REQUIRE((plus == 0 || minus == 0));
    }
  }
}

}  // namespace

TEST_CASE("tables of sixteen values, of eight indices in a word, whole and as differences") {
  static_assert(InParts<TableBlock<1>>::kSplit && InParts<TableBlock<-1>>::kSplit);
  static_assert(!InParts<TableBlock<0>>::kSplit);
  Random random(2);
  for (int i = 0; i < 2000; ++i) {
    const uint64_t nibbles = static_cast<uint64_t>(random()) << 32 | static_cast<uint32_t>(random());
    check_table<1>(nibbles);
    check_table<-1>(nibbles);
    check_table<0>(nibbles);
  }
}

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
    uint32_t first, second, picked_first, picked_second;
    lookup_in_order(v, table, first, second);
    lookup_in_order_by_picks(v, table, picked_first, picked_second);
    REQUIRE(first == picked_first);
    REQUIRE(second == picked_second);
    const uint32_t in_order = spread_nibbles(v), behind = spread_nibbles(v >> 16);
    for (int j = 0; j < 4; ++j) {
      REQUIRE((in_order >> (8 * j) & 255u) == (v >> (4 * j) & 15u));
      REQUIRE((behind >> (8 * j) & 255u) == (v >> (4 * j + 16) & 15u));
      REQUIRE(quad_byte(first, j) == quad_byte(j % 2 == 0 ? low : high, j / 2));
      REQUIRE(quad_byte(second, j) == quad_byte(j % 2 == 0 ? low : high, 2 + j / 2));
    }
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
