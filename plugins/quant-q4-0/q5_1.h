// Q5_1: 32 columns share a scale and a minimum, 6 bits per weight. w = d * q + m, q in 0..31: nibbles, and
// the fifth bits in a word of their own. Source of the format: ggml's block_q5_1,
// https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
#pragma once

#include "apr/codec.h"

namespace apr {

struct Q5_1 {
  static constexpr int kBlock = 32;
  static constexpr int kBytes = 24;
  static constexpr int kAlign = 8;
  static constexpr bool kInteger = true;
  static constexpr bool kOffset = true;
  static constexpr int kGroup = 32;
  static constexpr int kRuns = 2;
  static constexpr int kRun = 16;

  APR_FN static constexpr int col(int, int run) { return 16 * run; }

  // Byte i holds columns i (low nibble) and 16 + i (high).
  // The high bits as the file has them, bit j for column j, to one bit in each byte of the quads.
  APR_FN static uint32_t high_quad(uint32_t bits, int run, int quad) {
    return spread_bits(bits >> (16 * run + 4 * quad)) << 4;
  }
  // And as the planar layout has them: quad 4 r + i at bit 4 r + i of each byte, which costs a shift and a
  // mask.
  APR_FN static uint32_t planar_quad(uint32_t bits, int run, int quad) {
    return ((bits >> (4 * run + quad)) & 0x01010101u) << 4;
  }
  static uint32_t planar_bits(uint32_t bits) {
    uint32_t planar = 0;
    for (int i = 0; i < 8; ++i) planar |= spread_bits(bits >> (4 * i)) << i;
    return planar;
  }

  struct RowMajor {
    static constexpr int kPlanes = 1;
    static constexpr int kPlaneBytes[kPlanes] = {kBytes};
    struct Raw {
      uint32_t qs[4];
      uint32_t high;
      uint32_t dm;
    };
    APR_FN static Raw load(const Planes<kPlanes>& block, int) {
      Raw raw;
      raw.dm = apr::load<uint32_t>(block.p[0]);
      raw.high = apr::load<uint32_t>(block.p[0] + 4);
      load_words<4, kAlign>(block.p[0] + 8, raw.qs);
      return raw;
    }
    APR_FN static void decode(const Raw& raw, int, IntChunk<kRuns, kRun>& out) {
      for (int r = 0; r < 2; ++r) {
        for (int i = 0; i < 4; ++i)
          out.q[r][i] = ((raw.qs[i] >> (4 * r)) & 0x0f0f0f0fu) | high_quad(raw.high, r, i);
        out.scale[r] = half_to_float(static_cast<uint16_t>(raw.dm));
        out.offset[r] = half_to_float(static_cast<uint16_t>(raw.dm >> 16));
      }
    }
  };

  // Nibbles; high bits; {d, m}. A lane's loads are 16, 4 and 4 bytes.
  struct Planar {
    static constexpr int kPlanes = 3;
    static constexpr int kPlaneBytes[kPlanes] = {16, 4, 4};
    struct Raw {
      U4 qs;
      uint32_t high;
      uint32_t dm;
    };
    APR_FN static Raw load(const Planes<kPlanes>& block, int) {
      return {apr::load<U4>(block.p[0]), apr::load<uint32_t>(block.p[1]), apr::load<uint32_t>(block.p[2])};
    }
    APR_FN static void decode(const Raw& raw, int, IntChunk<kRuns, kRun>& out) {
      const uint32_t words[4] = {raw.qs.x, raw.qs.y, raw.qs.z, raw.qs.w};
      for (int r = 0; r < 2; ++r) {
        for (int i = 0; i < 4; ++i)
          out.q[r][i] = ((words[i] >> (4 * r)) & 0x0f0f0f0fu) | planar_quad(raw.high, r, i);
        out.scale[r] = half_to_float(static_cast<uint16_t>(raw.dm));
        out.offset[r] = half_to_float(static_cast<uint16_t>(raw.dm >> 16));
      }
    }
    static void split(const uint8_t* block, uint8_t* const* plane) {
      uint32_t bits;
      __builtin_memcpy(&bits, block + 4, 4);
      bits = planar_bits(bits);
      __builtin_memcpy(plane[0], block + 8, 16);
      __builtin_memcpy(plane[1], &bits, 4);
      __builtin_memcpy(plane[2], block, 4);
    }
  };
};

}  // namespace apr
