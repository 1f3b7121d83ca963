// example.nf4: 64 columns share a scale, a nibble picks one of sixteen values; 4.25 bits per weight. w = d * table[nibble].
// The table is that of 4-bit NormalFloat times 127, as integers. Source of the values: Dettmers et al., QLoRA, appendix E,
// https://arxiv.org/abs/2305.14314
//
// A block in a file, 34 bytes:   0  d       IEEE half
//                                2  qs[32]  byte i: column 2 i (low nibble), 2 i + 1 (high)
#pragma once

#include "apr/codec.h"

struct ExampleNf4Block {
  static constexpr int kBlock = 64;
  static constexpr int kBytes = 34;
  static constexpr int kParts[] = {2, 32};
  static constexpr int kAlign = 2;
  static constexpr bool kInteger = true;
  static constexpr bool kOffset = false;
  static constexpr int kGroup = 64;
  static constexpr int kRuns = 2;
  static constexpr int kRun = 16;
  APR_FN static constexpr int col(int chunk, int run) { return 32 * chunk + 16 * run; }

  // What decode gives are indices in this table, eight nibbles in a word: kernels look them up, four or sixty-four at a time.
  static constexpr int kTable[16] = {-127, -88, -67, -50, -36, -23, -12, 0, 10, 20, 31, 43, 56, 71, 92, 127};
  static constexpr bool kNibbles = true;

  struct Raw {
    uint16_t d;
    uint32_t qs[4];
  };
  APR_FN static Raw load(const auto& block, int chunk) {
    Raw raw;
    apr::load_part<0>(block, 0, raw.d);
    apr::load_part<1>(block, 16 * chunk, raw.qs);
    return raw;
  }
  APR_FN static void decode(const Raw& raw, int, apr::IntChunk<kRuns, kRun>& out) {
    for (int r = 0; r < kRuns; ++r) {
      for (int i = 0; i < 2; ++i) out.q[r][i] = raw.qs[2 * r + i];
      out.scale[r] = apr::half_to_float(raw.d);
      out.offset[r] = 0.0f;
    }
  }
};

using ExampleNf4 = apr::InParts<ExampleNf4Block>;
