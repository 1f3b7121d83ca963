// MXFP4: 32 columns share a power of two, 4.25 bits per weight; a nibble is a sign, two bits of exponent and
// one of mantissa (OCP Microscaling, E2M1 with E8M0). The table has twice the values, so that they are
// integers; the scale is half of 2^(e - 127) to match. Where the definition has e = 255 as NaN, GGUF's has
// 2^127: so has this. Source of the format: ggml's block_mxfp4,
// https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
#pragma once

#include "apr/codec.h"

namespace apr {

struct MXFP4 {
  static constexpr int kBlock = 32;
  static constexpr int kBytes = 17;
  static constexpr int kAlign = 1;
  static constexpr bool kInteger = true;
  static constexpr bool kOffset = false;
  static constexpr int kGroup = 32;
  static constexpr int kRuns = 2;
  static constexpr int kRun = 16;

  APR_FN static constexpr int col(int, int run) { return 16 * run; }

  // 0, 1, 2, 3, 4, 6, 8, 12 and their negatives: the negative zero is a zero here.
  APR_FN static U4 table() { return {0x03020100u, 0x0c080604u, 0xfdfeff00u, 0xf4f8fafcu}; }

  // 2^(e - 128), of which the two least are subnormal.
  APR_FN static float scale_of(uint32_t e) { return bits_to_float(e < 2 ? 0x00200000u << e : (e - 1) << 23); }

  // Byte i holds columns i (low nibble) and 16 + i (high).
  APR_FN static void unpack(const uint32_t words[4], float scale, IntChunk<kRuns, kRun>& out) {
    for (int i = 0; i < 4; ++i) lookup_nibbles(words[i], table(), out.q[0][i], out.q[1][i]);
    for (int r = 0; r < 2; ++r) {
      out.scale[r] = scale;
      out.offset[r] = 0.0f;
    }
  }

  struct RowMajor {
    static constexpr int kPlanes = 1;
    static constexpr int kPlaneBytes[kPlanes] = {kBytes};
    struct Raw {
      uint32_t qs[4];
      uint8_t e;
    };
    APR_FN static Raw load(const Planes<kPlanes>& block, int) {
      Raw raw;
      raw.e = apr::load<uint8_t>(block.p[0]);
      load_words<4, kAlign>(block.p[0] + 1, raw.qs);
      return raw;
    }
    APR_FN static void decode(const Raw& raw, int, IntChunk<kRuns, kRun>& out) {
      unpack(raw.qs, scale_of(raw.e), out);
    }
  };

  // Nibbles; the exponent. A lane's loads are 16 and 1 bytes.
  struct Planar {
    static constexpr int kPlanes = 2;
    static constexpr int kPlaneBytes[kPlanes] = {16, 1};
    struct Raw {
      U4 qs;
      uint8_t e;
    };
    APR_FN static Raw load(const Planes<kPlanes>& block, int) {
      return {apr::load<U4>(block.p[0]), apr::load<uint8_t>(block.p[1])};
    }
    APR_FN static void decode(const Raw& raw, int, IntChunk<kRuns, kRun>& out) {
      const uint32_t words[4] = {raw.qs.x, raw.qs.y, raw.qs.z, raw.qs.w};
      unpack(words, scale_of(raw.e), out);
    }
    static void split(const uint8_t* block, uint8_t* const* plane) {
      __builtin_memcpy(plane[0], block + 1, 16);
      __builtin_memcpy(plane[1], block, 1);
    }
  };
};

}  // namespace apr
