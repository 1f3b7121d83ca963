// Q4_0: 32 columns share a scale, 4.5 bits per weight. w = d * q, q in -8..7 stored as q + 8.
// Source of the format: ggml's block_q4_0, https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
#pragma once

#include "apr/codec.h"

namespace apr {

struct Q4_0 {
  static constexpr int kBlock = 32;
  static constexpr int kBytes = 18;
  static constexpr int kAlign = 2;
  static constexpr bool kInteger = true;
  static constexpr bool kOffset = false;
  static constexpr int kGroup = 32;
  static constexpr int kRuns = 2;
  static constexpr int kRun = 16;

  APR_FN static constexpr int col(int, int run) { return 16 * run; }

  // Byte i holds columns i (low nibble) and 16 + i (high). Integers are taken as 16 * q, from the upper half of a
  // byte: there q is an int8 by itself once its upper bit is flipped, and 8 need not be subtracted from every
  // byte. The scale is a sixteenth, which is exact.
  APR_FN static void unpack(const uint32_t words[4], uint16_t d, IntChunk<kRuns, kRun>& out) {
    for (int r = 0; r < 2; ++r) {
      for (int i = 0; i < 4; ++i)
        out.q[r][i] = ((r == 0 ? words[i] << 4 : words[i]) & 0xf0f0f0f0u) ^ 0x80808080u;
      out.scale[r] = mul(half_to_float(d), 0.0625f);
      out.offset[r] = 0.0f;
    }
  }

  struct RowMajor {
    static constexpr int kPlanes = 1;
    static constexpr int kPlaneBytes[kPlanes] = {kBytes};
    struct Raw {
      uint32_t qs[4];
      uint16_t d;
    };
    APR_FN static Raw load(const Planes<kPlanes>& block, int) {
      Raw raw;
      raw.d = apr::load<uint16_t>(block.p[0]);
      load_words<4, kAlign>(block.p[0] + 2, raw.qs);
      return raw;
    }
    APR_FN static void decode(const Raw& raw, int, IntChunk<kRuns, kRun>& out) { unpack(raw.qs, raw.d, out); }
  };

  // Quants; d. A lane's loads are 16 and 2 bytes.
  struct Planar {
    static constexpr int kPlanes = 2;
    static constexpr int kPlaneBytes[kPlanes] = {16, 2};
    struct Raw {
      uint32_t qs[4];
      uint16_t d;
    };
    APR_FN static Raw load(const Planes<kPlanes>& block, int) {
      Raw raw;
      load_words<4, 16>(block.p[0], raw.qs);
      raw.d = apr::load<uint16_t>(block.p[1]);
      return raw;
    }
    APR_FN static void decode(const Raw& raw, int, IntChunk<kRuns, kRun>& out) { unpack(raw.qs, raw.d, out); }
    static void split(const uint8_t* block, uint8_t* const* plane) {
      __builtin_memcpy(plane[0], block + 2, 16);
      __builtin_memcpy(plane[1], block, 2);
    }
  };
};

}  // namespace apr
