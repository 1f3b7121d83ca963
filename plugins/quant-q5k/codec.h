// Q5_K: superblocks of 256 columns, 5.5 bits per weight. A sub-block of 32 columns has a 6-bit scale and a
// 6-bit min; w = (d * scale) * q - (dmin * min), q in 0..31: nibbles, and the fifth bits apart. Source of the
// format: ggml's block_q5_K, https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
#pragma once

#include "apr/codec.h"

namespace apr {

struct Q5K {
  static constexpr int kBlock = 256;
  static constexpr int kBytes =
      176;  // d, dmin: 2 x f16; 12 bytes of packed scales and mins; 32 of fifth bits; 128 of nibbles
  static constexpr int kAlign = 16;
  static constexpr bool kInteger = true;
  static constexpr bool kOffset = true;
  static constexpr int kGroup = 32;
  static constexpr int kRuns = 2;
  static constexpr int kRun = 16;

  // Nibble byte 32 g + i holds columns 64 g + i (low) and 64 g + 32 + i (high); their fifth bits are bits 2 g
  // and 2 g + 1 of high byte i. Chunk c takes the 16 nibble bytes from 16 c.
  APR_FN static constexpr int col(int chunk, int run) {
    return 64 * (chunk / 2) + 16 * (chunk % 2) + 32 * run;
  }

  // Scale and min of sub-block s from the 12 packed bytes: the first four pairs lie in the low 6 bits of
  // bytes 0-3 and 4-7; of the others, the low 4 bits lie in bytes 8-11 and the high 2 in the top bits of
  // bytes 0-7.
  APR_FN static void scale_min(const uint32_t packed[3], int s, uint32_t& scale, uint32_t& min) {
    const int shift = 8 * (s % 4);
    const uint32_t a = packed[0] >> shift, b = packed[1] >> shift, c = packed[2] >> shift;
    scale = s < 4 ? a & 63u : (c & 15u) | ((a >> 2) & 0x30u);
    min = s < 4 ? b & 63u : ((c >> 4) & 15u) | ((b >> 2) & 0x30u);
  }

  // scale, min: of the chunk's two sub-blocks, as floats.
  APR_FN static void scales(uint32_t dd, const float scale[2], const float min[2],
                            IntChunk<kRuns, kRun>& out) {
    const float d = half_to_float(static_cast<uint16_t>(dd)),
                dmin = half_to_float(static_cast<uint16_t>(dd >> 16));
    for (int r = 0; r < kRuns; ++r) {
      out.scale[r] = mul(d, scale[r]);
      out.offset[r] = -mul(dmin, min[r]);
    }
  }

  struct RowMajor {
    static constexpr int kPlanes = 1;
    static constexpr int kPlaneBytes[kPlanes] = {kBytes};
    struct Raw {
      U4 head;  // d, dmin, packed scales
      U4 high;
      U4 qs;
    };
    APR_FN static Raw load(const Planes<kPlanes>& block, int chunk) {
      const uint8_t* p = block.p[0];
      return {apr::load<U4>(p), apr::load<U4>(p + 16 + 16 * (chunk % 2)), apr::load<U4>(p + 48 + 16 * chunk)};
    }
    APR_FN static void decode(const Raw& raw, int chunk, IntChunk<kRuns, kRun>& out) {
      const uint32_t words[4] = {raw.qs.x, raw.qs.y, raw.qs.z, raw.qs.w};
      const uint32_t bits[4] = {raw.high.x, raw.high.y, raw.high.z, raw.high.w};
      const int s = chunk / 2 * 2;
      for (int r = 0; r < 2; ++r)
        for (int i = 0; i < 4; ++i)
          out.q[r][i] = ((words[i] >> (4 * r)) & 0x0f0f0f0fu) | ((bits[i] >> (s + r)) & 0x01010101u) << 4;
      const uint32_t packed[3] = {raw.head.y, raw.head.z, raw.head.w};
      float scale[2], min[2];
      for (int r = 0; r < kRuns; ++r) {
        uint32_t of_scale, of_min;
        scale_min(packed, s + r, of_scale, of_min);
        scale[r] = static_cast<float>(of_scale), min[r] = static_cast<float>(of_min);
      }
      scales(raw.head.x, scale, min, out);
    }
  };

  // Nibbles; per chunk a word of fifth bits, quad 4 r + i at bit 4 r + i of each byte; per pair of sub-blocks
  // the bytes {scale, scale, min, min}; {d, dmin}. A lane's loads are 16, 4, 4 and 4 bytes.
  struct Planar {
    static constexpr int kPlanes = 4;
    static constexpr int kPlaneBytes[kPlanes] = {128, 32, 16, 4};
    struct Raw {
      uint32_t qs[4];
      uint32_t high;
      uint32_t scales;
      uint32_t dd;
    };
    APR_FN static Raw load(const Planes<kPlanes>& block, int chunk) {
      Raw raw;
      load_words<4, 16>(block.p[0] + 16 * chunk, raw.qs);
      raw.high = apr::load<uint32_t>(block.p[1] + 4 * chunk);
      raw.scales = apr::load<uint32_t>(block.p[2] + 4 * (chunk / 2));
      raw.dd = apr::load<uint32_t>(block.p[3]);
      return raw;
    }
    APR_FN static void decode(const Raw& raw, int, IntChunk<kRuns, kRun>& out) {
      for (int r = 0; r < 2; ++r)
        for (int i = 0; i < 4; ++i)
          out.q[r][i] = ((raw.qs[i] >> (4 * r)) & 0x0f0f0f0fu) | ((raw.high >> (4 * r + i)) & 0x01010101u)
                                                                     << 4;
      const float scale[2] = {byte_to_float(raw.scales, 0), byte_to_float(raw.scales, 1)},
                  min[2] = {byte_to_float(raw.scales, 2), byte_to_float(raw.scales, 3)};
      Q5K::scales(raw.dd, scale, min, out);
    }
    static void split(const uint8_t* block, uint8_t* const* plane) {
      __builtin_memcpy(plane[0], block + 48, 128);
      for (int c = 0; c < 8; ++c) {
        uint32_t bytes[4], word = 0;
        __builtin_memcpy(bytes, block + 16 + 16 * (c % 2), 16);
        for (int r = 0; r < 2; ++r)
          for (int i = 0; i < 4; ++i) word |= ((bytes[i] >> (c / 2 * 2 + r)) & 0x01010101u) << (4 * r + i);
        __builtin_memcpy(plane[1] + 4 * c, &word, 4);
      }
      uint32_t packed[3];
      __builtin_memcpy(packed, block + 4, 12);
      for (int s = 0; s < 8; ++s) {
        uint32_t scale, min;
        scale_min(packed, s, scale, min);
        plane[2][4 * (s / 2) + s % 2] = static_cast<uint8_t>(scale);
        plane[2][4 * (s / 2) + 2 + s % 2] = static_cast<uint8_t>(min);
      }
      __builtin_memcpy(plane[3], block, 4);
    }
  };
};

}  // namespace apr
