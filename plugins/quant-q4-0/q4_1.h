// Q4_1: 32 columns share a scale and a minimum, 5 bits per weight. w = d * q + m, q in 0..15.
// Source of the format: ggml's block_q4_1, https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
#pragma once

#include "apr/codec.h"

namespace apr {

struct Q4_1 {
  static constexpr int kBlock = 32;
  static constexpr int kBytes = 20;
  static constexpr int kAlign = 4;
  static constexpr bool kInteger = true;
  static constexpr bool kOffset = true;
  static constexpr int kGroup = 32;
  static constexpr int kRuns = 2;
  static constexpr int kRun = 16;

  APR_FN static constexpr int col(int, int run) { return 16 * run; }

  // Byte i holds columns i (low nibble) and 16 + i (high). dm: d in the lower half, m in the upper.
  APR_FN static void unpack(const uint32_t words[4], uint32_t dm, IntChunk<kRuns, kRun>& out) {
    for (int r = 0; r < 2; ++r) {
      for (int i = 0; i < 4; ++i) out.q[r][i] = (words[i] >> (4 * r)) & 0x0f0f0f0fu;
      out.scale[r] = half_to_float(static_cast<uint16_t>(dm));
      out.offset[r] = half_to_float(static_cast<uint16_t>(dm >> 16));
    }
  }

  struct RowMajor {
    static constexpr int kPlanes = 1;
    static constexpr int kPlaneBytes[kPlanes] = {kBytes};
    struct Raw {
      uint32_t qs[4];
      uint32_t dm;
    };
    APR_FN static Raw load(const Planes<kPlanes>& block, int) {
      Raw raw;
      raw.dm = apr::load<uint32_t>(block.p[0]);
      load_words<4, kAlign>(block.p[0] + 4, raw.qs);
      return raw;
    }
    APR_FN static void decode(const Raw& raw, int, IntChunk<kRuns, kRun>& out) {
      unpack(raw.qs, raw.dm, out);
    }
  };

  // Quants; {d, m}. A lane's loads are 16 and 4 bytes.
  struct Planar {
    static constexpr int kPlanes = 2;
    static constexpr int kPlaneBytes[kPlanes] = {16, 4};
    struct Raw {
      U4 qs;
      uint32_t dm;
    };
    APR_FN static Raw load(const Planes<kPlanes>& block, int) {
      return {apr::load<U4>(block.p[0]), apr::load<uint32_t>(block.p[1])};
    }
    APR_FN static void decode(const Raw& raw, int, IntChunk<kRuns, kRun>& out) {
      const uint32_t words[4] = {raw.qs.x, raw.qs.y, raw.qs.z, raw.qs.w};
      unpack(words, raw.dm, out);
    }
    static void split(const uint8_t* block, uint8_t* const* plane) {
      __builtin_memcpy(plane[0], block + 4, 16);
      __builtin_memcpy(plane[1], block, 4);
    }
  };
};

}  // namespace apr
