// example.int3: superblocks of 256 columns, 3.31 bits per weight. Thirty-two columns share an 8-bit scale, all of them a
// half: w = (d * scale) * q, scale in -128..127, q in -4..3.
//
// A block in a file, 106 bytes, 64 columns at a time (chunk c = 0..3, q + 4 in three bits):
//    0  low[64]     the two lower bits: byte 16 c + 4 i + j has columns 64 c + 4 i + j + {0, 16, 32, 48} in its four pairs
//   64  high[32]    the third bits: bit 4 (r % 2) + i of byte 8 c + 4 (r / 2) + j is column 64 c + 16 r + 4 i + j
//   96  scales[8]   int8, of 32 columns each
//  104  d           IEEE half
#pragma once

#include "apr/codec.h"

struct ExampleInt3Block {
  static constexpr int kBlock = 256;
  static constexpr int kBytes = 106;
  static constexpr int kParts[] = {64, 32, 8, 2};
  static constexpr int kAlign = 2;
  static constexpr bool kInteger = true;
  static constexpr bool kOffset = true;
  static constexpr int kGroup = 32;
  static constexpr int kRuns = 4;
  static constexpr int kRun = 16;
  APR_FN static constexpr int col(int chunk, int run) { return 64 * chunk + 16 * run; }

  struct Raw {
    uint32_t low[4], high[2];
    uint16_t scales, d;
  };
  APR_FN static Raw load(const auto& block, int chunk) {
    Raw raw;
    apr::load_part<0>(block, 16 * chunk, raw.low);
    apr::load_part<1>(block, 8 * chunk, raw.high);
    apr::load_part<2>(block, 2 * chunk, raw.scales);
    apr::load_part<3>(block, 0, raw.d);
    return raw;
  }
  APR_FN static void decode(const Raw& raw, int, apr::IntChunk<kRuns, kRun>& out) {
    for (int r = 0; r < kRuns; ++r) {
      for (int i = 0; i < 4; ++i) {
        const uint32_t low = (raw.low[i] >> (2 * r)) & 0x03030303u;
        const int bit = 4 * (r % 2) + i;  // of every byte: one shift brings it to bit 2
        const uint32_t high = bit < 2 ? raw.high[r / 2] << (2 - bit) : raw.high[r / 2] >> (bit - 2);
        out.q[r][i] = low | (high & 0x04040404u);
      }
      const int scale = apr::quad_byte(raw.scales, r / 2);
      out.scale[r] = apr::mul(apr::half_to_float(raw.d), static_cast<float>(scale));
      out.offset[r] = apr::mul(out.scale[r], -4.0f);
    }
  }
};

using ExampleInt3 = apr::InParts<ExampleInt3Block>;
