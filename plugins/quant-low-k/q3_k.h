// Q3_K: superblocks of 256 columns, 3.4375 bits per weight. Sixteen columns share a 6-bit scale; w = (d *
// scale) * q with scale in -32..31 and q in -4..3: two bits of q + 4, and the third apart. Source of the
// format: ggml's block_q3_K, https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
#pragma once

#include "apr/codec.h"

namespace apr {

struct Q3K {
  static constexpr int kBlock = 256;
  static constexpr int kBytes =
      110;  // 32 bytes of third bits, 64 of pairs of bits, 12 of packed scales, d as f16
  static constexpr int kAlign = 2;
  static constexpr bool kInteger = true;
  static constexpr bool kOffset = false;
  static constexpr int kGroup = 16;
  static constexpr int kRuns = 4;
  static constexpr int kRun = 16;

  // Byte 32 h + i (i < 32) holds columns 128 h + i + {0, 32, 64, 96} in its four pairs of bits; their third
  // bits are bits 4 h .. 4 h + 3 of high byte i. Chunk c takes 16 bytes from 16 c.
  APR_FN static constexpr int col(int chunk, int run) {
    return 128 * (chunk / 2) + 16 * (chunk % 2) + 32 * run;
  }

  // Scale of 16 columns, + 32: low nibbles in bytes 0-7 (both nibbles), high pairs in bytes 8-11.
  APR_FN static int scale(const uint32_t packed[3], int s) {
    const uint32_t low = packed[s / 4 % 2] >> (8 * (s % 4) + 4 * (s / 8)),
                   high = packed[2] >> (8 * (s % 4) + 2 * (s / 4));
    return static_cast<int>((low & 15u) | (high & 3u) << 4) - 32;
  }

  // Integers are taken as 32 * q, from the upper three bits of a byte: there q is an int8 by itself once its upper
  // bit is flipped, and 4 need not be subtracted from every byte. The factor is a thirty-second, which is exact.
  APR_FN static float factor(uint16_t d) { return mul(half_to_float(d), 0.03125f); }
  APR_FN static uint32_t pairs(uint32_t word, int run) {
    return (run < 3 ? word << (5 - 2 * run) : word >> 1) & 0x60606060u;
  }

  struct RowMajor {
    static constexpr int kPlanes = 1;
    static constexpr int kPlaneBytes[kPlanes] = {kBytes};
    struct Raw {
      uint32_t qs[4], high[4];
      uint32_t scales[3];
      uint16_t d;
    };
    APR_FN static Raw load(const Planes<kPlanes>& block, int chunk) {
      const uint8_t* p = block.p[0];
      Raw raw;
      load_words<4, kAlign>(p + 32 + 16 * chunk, raw.qs);
      load_words<4, kAlign>(p + 16 * (chunk % 2), raw.high);
      load_words<3, kAlign>(p + 96, raw.scales);
      raw.d = apr::load<uint16_t>(p + 108);
      return raw;
    }
    APR_FN static void decode(const Raw& raw, int chunk, IntChunk<kRuns, kRun>& out) {
      const float d = factor(raw.d);
      for (int r = 0; r < kRuns; ++r) {
        for (int i = 0; i < 4; ++i) {
          const uint32_t third = (~raw.high[i] >> (4 * (chunk / 2) + r)) & 0x01010101u;
          out.q[r][i] = pairs(raw.qs[i], r) | third << 7;
        }
        out.scale[r] = mul(d, static_cast<float>(scale(raw.scales, 8 * (chunk / 2) + 2 * r + chunk % 2)));
        out.offset[r] = 0.0f;
      }
    }
  };

  // Pairs of bits; per chunk two words of third bits, flipped, quad i of run r at bit 4 (r % 2) + i of each byte of
  // word r / 2; per chunk four int8 scales; d. A lane's loads are 16, 8, 4 and 2 bytes.
  struct Planar {
    static constexpr int kPlanes = 4;
    static constexpr int kPlaneBytes[kPlanes] = {64, 32, 16, 2};
    struct Raw {
      uint32_t qs[4];
      uint32_t high[2];
      uint32_t scales;
      uint16_t d;
    };
    APR_FN static Raw load(const Planes<kPlanes>& block, int chunk) {
      Raw raw;
      load_words<4, 16>(block.p[0] + 16 * chunk, raw.qs);
      load_words<2, 8>(block.p[1] + 8 * chunk, raw.high);
      raw.scales = apr::load<uint32_t>(block.p[2] + 4 * chunk);
      raw.d = apr::load<uint16_t>(block.p[3]);
      return raw;
    }
    APR_FN static void decode(const Raw& raw, int, IntChunk<kRuns, kRun>& out) {
      const float d = factor(raw.d);
      for (int r = 0; r < kRuns; ++r) {
        for (int i = 0; i < 4; ++i)
          out.q[r][i] = pairs(raw.qs[i], r) | ((raw.high[r / 2] << (7 - 4 * (r % 2) - i)) & 0x80808080u);
        out.scale[r] = mul(d, quad_byte_to_float(raw.scales, r));
        out.offset[r] = 0.0f;
      }
    }
    static void split(const uint8_t* block, uint8_t* const* plane) {
      __builtin_memcpy(plane[0], block + 32, 64);
      uint32_t packed[3];
      __builtin_memcpy(packed, block + 96, 12);
      for (int c = 0; c < 4; ++c) {
        uint32_t bytes[4], words[2] = {};
        __builtin_memcpy(bytes, block + 16 * (c % 2), 16);
        for (int r = 0; r < 4; ++r) {
          for (int i = 0; i < 4; ++i)
            words[r / 2] |= ((~bytes[i] >> (4 * (c / 2) + r)) & 0x01010101u) << (4 * (r % 2) + i);
          plane[2][4 * c + r] = static_cast<uint8_t>(scale(packed, 8 * (c / 2) + 2 * r + c % 2));
        }
        __builtin_memcpy(plane[1] + 8 * c, words, 8);
      }
      __builtin_memcpy(plane[3], block + 108, 2);
    }
  };
};

}  // namespace apr
