// Q5_0: 32 columns share a scale, 5.5 bits per weight. w = d * q, q in -16..15 stored as q + 16: nibbles, and
// the fifth bits in a word of their own. Source of the format: ggml's block_q5_0,
// https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
#pragma once

#include "apr/codec.h"

namespace apr {

struct Q5_0 {
  static constexpr int kBlock = 32;
  static constexpr int kBytes = 22;
  static constexpr int kAlign = 2;
  static constexpr bool kInteger = true;
  static constexpr bool kOffset = false;
  static constexpr int kGroup = 32;
  static constexpr int kRuns = 2;
  static constexpr int kRun = 16;

  APR_FN static constexpr int col(int, int run) { return 16 * run; }

  // Byte i holds columns i (low nibble) and 16 + i (high). Integers are taken as 8 * q, from bits 3 to 7 of a byte:
  // there q is an int8 by itself once its upper bit is flipped, and 16 need not be subtracted from every byte. The
  // scale is an eighth, which is exact.
  APR_FN static uint32_t low_quad(uint32_t word, int run) {
    return (run == 0 ? word << 3 : word >> 1) & 0x78787878u;
  }
  // The high bits as the file has them, bit j for column j, flipped, to the upper bit in each byte of the quads.
  APR_FN static uint32_t high_quad(uint32_t bits, int run, int quad) {
    return spread_bits(~bits >> (16 * run + 4 * quad)) << 7;
  }
  // And as the planar layout has them: quad 4 r + i, flipped already, at bit 4 r + i of each byte, which costs a
  // shift and a mask.
  APR_FN static uint32_t planar_quad(uint32_t bits, int run, int quad) {
    return (bits << (7 - 4 * run - quad)) & 0x80808080u;
  }
  static uint32_t planar_bits(uint32_t bits) {
    uint32_t planar = 0;
    for (int i = 0; i < 8; ++i) planar |= spread_bits(~bits >> (4 * i)) << i;
    return planar;
  }

  struct RowMajor {
    static constexpr int kPlanes = 1;
    static constexpr int kPlaneBytes[kPlanes] = {kBytes};
    struct Raw {
      uint32_t qs[4];
      uint32_t high;
      uint16_t d;
    };
    APR_FN static Raw load(const Planes<kPlanes>& block, int) {
      Raw raw;
      raw.d = apr::load<uint16_t>(block.p[0]);
      load_words<1, kAlign>(block.p[0] + 2, &raw.high);
      load_words<4, kAlign>(block.p[0] + 6, raw.qs);
      return raw;
    }
    APR_FN static void decode(const Raw& raw, int, IntChunk<kRuns, kRun>& out) {
      for (int r = 0; r < 2; ++r) {
        for (int i = 0; i < 4; ++i) out.q[r][i] = low_quad(raw.qs[i], r) | high_quad(raw.high, r, i);
        out.scale[r] = mul(half_to_float(raw.d), 0.125f);
        out.offset[r] = 0.0f;
      }
    }
  };

  // Nibbles; high bits; d. A lane's loads are 16, 4 and 2 bytes.
  struct Planar {
    static constexpr int kPlanes = 3;
    static constexpr int kPlaneBytes[kPlanes] = {16, 4, 2};
    struct Raw {
      uint32_t qs[4];
      uint32_t high;
      uint16_t d;
    };
    APR_FN static Raw load(const Planes<kPlanes>& block, int) {
      Raw raw;
      load_words<4, 16>(block.p[0], raw.qs);
      raw.high = apr::load<uint32_t>(block.p[1]);
      raw.d = apr::load<uint16_t>(block.p[2]);
      return raw;
    }
    APR_FN static void decode(const Raw& raw, int, IntChunk<kRuns, kRun>& out) {
      for (int r = 0; r < 2; ++r) {
        for (int i = 0; i < 4; ++i) out.q[r][i] = low_quad(raw.qs[i], r) | planar_quad(raw.high, r, i);
        out.scale[r] = mul(half_to_float(raw.d), 0.125f);
        out.offset[r] = 0.0f;
      }
    }
    static void split(const uint8_t* block, uint8_t* const* plane) {
      uint32_t bits;
      __builtin_memcpy(&bits, block + 2, 4);
      bits = planar_bits(bits);
      __builtin_memcpy(plane[0], block + 6, 16);
      __builtin_memcpy(plane[1], &bits, 4);
      __builtin_memcpy(plane[2], block, 2);
    }
  };
};

}  // namespace apr
