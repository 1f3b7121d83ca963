// example.int3: superblocks of 256 columns, 3.31 bits per weight. Thirty-two columns share an 8-bit scale, all of them a
// half: w = (d * scale) * q, scale in -128..127, q in -4..3.
//
// A block in a file, 106 bytes, 64 columns at a time (chunk c = 0..3). Three bytes a, b, c hold eight values v0 .. v7 (q + 4):
//    0  a[32]      bits 0-2 v0, 3-5 v1, 6-7 the lower bits of v2
//   32  b[32]      bits 0-2 v3, 3-5 v4, 6-7 the lower bits of v5
//   64  c[32]      bits 0-2 v6, 3-5 v7, 6 the third bit of v2, 7 that of v5
//   96  scales[8]  int8, of 32 columns each
//  104  d          IEEE half
// Bytes 8 c + 4 i + j of each array have column 64 c + 8 n + 4 i + j as vn.
#pragma once

#include "apr/codec.h"

struct ExampleInt3Block {
  static constexpr int kBlock = 256, kBytes = 106, kAlign = 2;
  static constexpr int kParts[] = {96, 8, 2};
  static constexpr bool kInteger = true, kOffset = true;
  static constexpr int kGroup = 32, kRuns = 4, kRun = 16;
  APR_FN static constexpr int col(int chunk, int run) { return 64 * chunk + 16 * run; }

  struct Raw {
    uint32_t a[2], b[2], c[2];
    uint16_t scales, d;
  };
  APR_FN static Raw load(const auto& block, int chunk) {
    Raw raw;
    apr::load_part<0>(block, 8 * chunk, raw.a);
    apr::load_part<0>(block, 32 + 8 * chunk, raw.b);
    apr::load_part<0>(block, 64 + 8 * chunk, raw.c);
    apr::load_part<1>(block, 2 * chunk, raw.scales);
    apr::load_part<2>(block, 0, raw.d);
    return raw;
  }
  APR_FN static void decode(const Raw& raw, int, apr::IntChunk<kRuns, kRun>& out) {
    constexpr uint32_t kLower = 0x03030303u, kThird = 0x04040404u;
    for (int i = 0; i < 2; ++i) {
      const uint32_t a = raw.a[i], b = raw.b[i], c = raw.c[i];
      const uint32_t v2 = (a >> 6 & kLower) | (c >> 4 & kThird), v5 = (b >> 6 & kLower) | (c >> 5 & kThird);
      const uint32_t v[8] = {a, a >> 3, v2, b, b >> 3, v5, c, c >> 3};
      for (int n = 0; n < 8; ++n) out.q[n / 2][n % 2 * 2 + i] = v[n] & (kLower | kThird);
    }
    for (int r = 0; r < kRuns; ++r) {
      out.scale[r] =
          apr::mul(apr::half_to_float(raw.d), static_cast<float>(apr::quad_byte(raw.scales, r / 2)));
      out.offset[r] = apr::mul(out.scale[r], -4.0f);
    }
  }
};

using ExampleInt3 = apr::InParts<ExampleInt3Block>;
