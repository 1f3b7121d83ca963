// Q4_K: superblocks of 256 columns, 4.5 bits per weight. A sub-block of 32 columns has a 6-bit scale and a
// 6-bit min; w = (d * scale) * q - (dmin * min), q in 0..15. Source of the format: ggml's block_q4_K,
// https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
#pragma once

#include "apr/codec.h"

namespace apr {

struct Q4K {
  static constexpr int kBlock = 256;
  static constexpr int kBytes =
      144;  // d, dmin: 2 x f16; 12 bytes of packed scales and mins; 128 bytes of nibbles
  static constexpr int kAlign = 16;
  static constexpr bool kInteger = true;
  static constexpr bool kOffset = true;
  static constexpr int kGroup = 32;
  static constexpr int kRuns = 2;
  static constexpr int kRun = 16;

  // Quant byte 32 g + i holds columns 64 g + i (low nibble) and 64 g + 32 + i (high). Chunk c takes the 16
  // bytes from 16 c.
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
  APR_FN static void unpack(const uint32_t qs[4], uint32_t dd, const float scale[2], const float min[2],
                            IntChunk<kRuns, kRun>& chunk) {
    const float d = half_to_float(static_cast<uint16_t>(dd)),
                dmin = half_to_float(static_cast<uint16_t>(dd >> 16));
    for (int r = 0; r < kRuns; ++r) {
      for (int i = 0; i < 4; ++i) chunk.q[r][i] = (qs[i] >> (4 * r)) & 0x0f0f0f0fu;
      chunk.scale[r] = mul(d, scale[r]);
      chunk.offset[r] = -mul(dmin, min[r]);
    }
  }

  struct RowMajor {
    static constexpr int kPlanes = 1;
    static constexpr int kPlaneBytes[kPlanes] = {kBytes};
    struct Raw {
      U4 head;  // d, dmin, packed scales
      U4 qs;
    };
    APR_FN static Raw load(const Planes<kPlanes>& block, int chunk) {
      return {apr::load<U4>(block.p[0]), apr::load<U4>(block.p[0] + 16 + 16 * chunk)};
    }
    APR_FN static void decode(const Raw& raw, int chunk, IntChunk<kRuns, kRun>& out) {
      const uint32_t packed[3] = {raw.head.y, raw.head.z, raw.head.w};
      const uint32_t qs[4] = {raw.qs.x, raw.qs.y, raw.qs.z, raw.qs.w};
      float scale[2], min[2];
      for (int r = 0; r < kRuns; ++r) {
        uint32_t s, m;
        scale_min(packed, chunk / 2 * 2 + r, s, m);
        scale[r] = static_cast<float>(s), min[r] = static_cast<float>(m);
      }
      unpack(qs, raw.head.x, scale, min, out);
    }
  };

  // Quants; per pair of sub-blocks the bytes {scale, scale, min, min}; {d, dmin}. A lane's loads are 16, 4
  // and 4 bytes.
  struct Planar {
    static constexpr int kPlanes = 3;
    static constexpr int kPlaneBytes[kPlanes] = {128, 16, 4};
    struct Raw {
      uint32_t qs[4];
      uint32_t scales;
      uint32_t dd;
    };
    APR_FN static Raw load(const Planes<kPlanes>& block, int chunk) {
      Raw raw;
      load_words<4, 16>(block.p[0] + 16 * chunk, raw.qs);
      raw.scales = apr::load<uint32_t>(block.p[1] + 4 * (chunk / 2));
      raw.dd = apr::load<uint32_t>(block.p[2]);
      return raw;
    }
    APR_FN static void decode(const Raw& raw, int, IntChunk<kRuns, kRun>& out) {
      const float scale[2] = {byte_to_float(raw.scales, 0), byte_to_float(raw.scales, 1)},
                  min[2] = {byte_to_float(raw.scales, 2), byte_to_float(raw.scales, 3)};
      unpack(raw.qs, raw.dd, scale, min, out);
    }
    static void split(const uint8_t* block, uint8_t* const* plane) {
      uint32_t packed[3];
      __builtin_memcpy(packed, block + 4, 12);
      __builtin_memcpy(plane[0], block + 16, 128);
      for (int s = 0; s < 8; ++s) {
        uint32_t scale, min;
        scale_min(packed, s, scale, min);
        plane[1][4 * (s / 2) + s % 2] = static_cast<uint8_t>(scale);
        plane[1][4 * (s / 2) + 2 + s % 2] = static_cast<uint8_t>(min);
      }
      __builtin_memcpy(plane[2], block, 4);
    }
  };
};

}  // namespace apr
