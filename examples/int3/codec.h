// example.int3: superblocks of 256 columns, 3.31 bits per weight. w = (d * scale) * q, q in -4..3; an int8 scale for
// 32 columns each, a half for all. The bits of q are taken where an int8 has its upper ones: as 32 * q, sign and all.
//
// A block in a file, 106 bytes, in four chunks c of 64 columns. Three bytes a, b, c hold eight values v0 .. v7, each as three
// bits of two's complement:
//    0  a[32]      bits 5-7 v0, 2-4 v1, 0-1 the upper bits of v2
//   32  b[32]      bits 5-7 v3, 2-4 v4, 0-1 the upper bits of v5
//   64  c[32]      bits 5-7 v6, 2-4 v7, 0 the lowest bit of v2, 1 that of v5
//   96  scales[8]  int8, of 32 columns each
//  104  d          IEEE half
// Bytes 8 c + 4 i + j of each array have column 128 (c / 2) + 16 (c % 2) + 32 (n / 2) + 8 (n % 2) + 4 i + j as vn.
#pragma once

#include "apr/codec.h"

struct ExampleInt3Block {
  static constexpr int kBlock = 256, kBytes = 106, kAlign = 2;
  static constexpr int kParts[] = {96, 8, 2};
  static constexpr bool kInteger = true, kOffset = false;
  static constexpr int kGroup = 32, kRuns = 4, kRun = 16;
  APR_FN static constexpr int col(int c, int r) { return 128 * (c / 2) + 16 * (c % 2) + 32 * r; }

  struct Raw {
    uint32_t a[2], b[2], c[2], scales;
    uint16_t d;
  };
  APR_FN static Raw load(const auto& block, int chunk) {
    Raw raw;
    apr::load_part<0>(block, 8 * chunk, raw.a);
    apr::load_part<0>(block, 32 + 8 * chunk, raw.b);
    apr::load_part<0>(block, 64 + 8 * chunk, raw.c);
    apr::load_part<1>(block, chunk / 2 * 4, raw.scales);
    apr::load_part<2>(block, 0, raw.d);
    return raw;
  }
  APR_FN static void decode(const Raw& raw, int, apr::IntChunk<kRuns, kRun>& out) {
    constexpr uint32_t kValue = 0xe0e0e0e0u, kUpper = 0xc0c0c0c0u, kLowest = 0x20202020u;
    for (int i = 0; i < 2; ++i) {
      const uint32_t a = raw.a[i], b = raw.b[i], c = raw.c[i];
      const uint32_t v2 = (a << 6 & kUpper) | (c << 5 & kLowest), v5 = (b << 6 & kUpper) | (c << 4 & kLowest);
      const uint32_t v[8] = {a, a << 3, v2, b, b << 3, v5, c, c << 3};
      for (int n = 0; n < 8; ++n) out.q[n / 2][n % 2 * 2 + i] = v[n] & kValue;
    }
    const float d = apr::mul(apr::half_to_float(raw.d), 1.0f / 32.0f);  // q is 32 times too great
    for (int r = 0; r < kRuns; ++r) {
      out.scale[r] = apr::mul(d, apr::quad_byte_to_float(raw.scales, r));
      out.offset[r] = 0.0f;
    }
  }
};

using ExampleInt3 = apr::InParts<ExampleInt3Block>;
