// The codec contract's tools, as the host compiles them, against plain arithmetic.
#include <doctest/doctest.h>

#include <cmath>

#include "formats_under_test.h"

using namespace apr;
using namespace apr::test;

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
