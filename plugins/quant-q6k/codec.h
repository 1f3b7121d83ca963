// Q6_K: superblocks of 256 columns, 6.56 bits per weight. Sixteen columns share an int8 scale; w = (d *
// scale) * q with q in -32..31, stored as q + 32: the low four bits and the high two apart. Source of the
// format: ggml's block_q6_K, https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
#pragma once

#include "apr/codec.h"

namespace apr {

struct Q6K {
  static constexpr int kBlock = 256;
  static constexpr int kBytes = 210;  // 128 bytes of low nibbles, 64 of high pairs, 16 scales, d as f16
  static constexpr int kAlign = 2;
  static constexpr bool kInteger = true;
  static constexpr bool kOffset = false;
  static constexpr int kGroup = 16;
  static constexpr int kRuns = 2;
  static constexpr int kRun = 16;

  // Low byte 64 h + l (l < 64) holds columns 128 h + l (low nibble) and 128 h + 64 + l (high). Chunk c takes
  // the 16 bytes from 16 c. High byte 32 h + l (l < 32) holds columns 128 h + l + {0, 32, 64, 96} in its four
  // pairs of bits.
  APR_FN static constexpr int col(int chunk, int run) {
    return 128 * (chunk / 4) + 16 * (chunk % 4) + 64 * run;
  }

  // Integers are taken as 4 * q, from bits 2 to 7 of a byte: there q is an int8 by itself once its upper bit is
  // flipped, and 32 need not be subtracted from every byte. The scale is a quarter, which is exact.
  APR_FN static float quarter(uint16_t d) { return mul(half_to_float(d), 0.25f); }

  struct RowMajor {
    static constexpr int kPlanes = 1;
    static constexpr int kPlaneBytes[kPlanes] = {kBytes};
    struct Raw {
      uint32_t low[4], high[4];
      uint8_t scale[2];
      uint16_t d;
    };
    APR_FN static Raw load(const Planes<kPlanes>& block, int chunk) {
      const uint8_t* p = block.p[0];
      Raw raw;
      load_words<4, kAlign>(p + 16 * chunk, raw.low);
      load_words<4, kAlign>(p + 128 + 32 * (chunk / 4) + 16 * (chunk % 2), raw.high);
      for (int r = 0; r < 2; ++r)
        raw.scale[r] = apr::load<uint8_t>(p + 192 + 8 * (chunk / 4) + chunk % 4 + 4 * r);
      raw.d = apr::load<uint16_t>(p + 208);
      return raw;
    }
    APR_FN static void decode(const Raw& raw, int chunk, IntChunk<kRuns, kRun>& out) {
      const int shift = 2 * (chunk % 4 / 2);
      const float d = quarter(raw.d);
      for (int r = 0; r < 2; ++r) {
        for (int i = 0; i < 4; ++i) {
          const uint32_t high = (raw.high[i] >> (shift + 4 * r)) & 0x03030303u;
          out.q[r][i] = (high << 6 ^ 0x80808080u) | ((raw.low[i] >> (4 * r)) & 0x0f0f0f0fu) << 2;
        }
        out.scale[r] = mul(d, static_cast<float>(static_cast<int8_t>(raw.scale[r])));
        out.offset[r] = 0.0f;
      }
    }
  };

  // Low nibbles; per chunk two words of high pairs with their upper bits flipped, one per run, quad i at bits
  // 2 i of each byte; per chunk its two scales; d. A lane's loads are 16, 8, 2 and 2 bytes.
  struct Planar {
    static constexpr int kPlanes = 4;
    static constexpr int kPlaneBytes[kPlanes] = {128, 64, 16, 2};
    struct Raw {
      uint32_t low[4];
      uint32_t high[2];
      uint16_t scales;
      uint16_t d;
    };
    APR_FN static Raw load(const Planes<kPlanes>& block, int chunk) {
      Raw raw;
      load_words<4, 16>(block.p[0] + 16 * chunk, raw.low);
      load_words<2, 8>(block.p[1] + 8 * chunk, raw.high);
      raw.scales = apr::load<uint16_t>(block.p[2] + 2 * chunk);
      raw.d = apr::load<uint16_t>(block.p[3]);
      return raw;
    }
    APR_FN static void decode(const Raw& raw, int, IntChunk<kRuns, kRun>& out) {
      const float d = quarter(raw.d);
      for (int r = 0; r < 2; ++r) {
        for (int i = 0; i < 4; ++i) {
          const uint32_t nibble = r == 0 ? raw.low[i] << 2 : raw.low[i] >> 2;
          out.q[r][i] = ((raw.high[r] << (6 - 2 * i)) & 0xc0c0c0c0u) | (nibble & 0x3c3c3c3cu);
        }
        out.scale[r] = mul(d, quad_byte_to_float(raw.scales, r));
        out.offset[r] = 0.0f;
      }
    }
    static void split(const uint8_t* block, uint8_t* const* plane) {
      __builtin_memcpy(plane[0], block, 128);
      for (int c = 0; c < 8; ++c) {
        uint32_t bytes[4], words[2] = {};
        __builtin_memcpy(bytes, block + 128 + 32 * (c / 4) + 16 * (c % 2), 16);
        for (int r = 0; r < 2; ++r)
          for (int i = 0; i < 4; ++i)
            words[r] |= (((bytes[i] >> (2 * (c % 4 / 2) + 4 * r)) & 0x03030303u) ^ 0x02020202u) << (2 * i);
        __builtin_memcpy(plane[1] + 8 * c, words, 8);
        for (int r = 0; r < 2; ++r) plane[2][2 * c + r] = block[192 + 8 * (c / 4) + c % 4 + 4 * r];
      }
      __builtin_memcpy(plane[3], block + 208, 2);
    }
  };
};

}  // namespace apr
