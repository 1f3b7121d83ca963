// Q2_K: superblocks of 256 columns, 2.625 bits per weight. Sixteen columns share a 4-bit scale and a 4-bit
// min; w = (d * scale) * q - (dmin * min), q in 0..3. Source of the format: ggml's block_q2_K,
// https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
#pragma once

#include "apr/codec.h"

namespace apr {

struct Q2K {
  static constexpr int kBlock = 256;
  static constexpr int kBytes = 84;  // 16 bytes of {scale, min}, 64 of pairs of bits, d and dmin as f16
  static constexpr int kAlign = 4;
  static constexpr bool kInteger = true;
  static constexpr bool kOffset = true;
  static constexpr int kGroup = 16;
  static constexpr int kRuns = 4;
  static constexpr int kRun = 16;

  // Byte 32 h + i (i < 32) holds columns 128 h + i + {0, 32, 64, 96} in its four pairs of bits. Chunk c takes
  // 16 bytes from 16 c.
  APR_FN static constexpr int col(int chunk, int run) {
    return 128 * (chunk / 2) + 16 * (chunk % 2) + 32 * run;
  }

  // scales: byte r is run r's, scale in the low nibble.
  APR_FN static void unpack(const uint32_t words[4], uint32_t scales, uint32_t dd,
                            IntChunk<kRuns, kRun>& out) {
    const float d = half_to_float(static_cast<uint16_t>(dd)),
                dmin = half_to_float(static_cast<uint16_t>(dd >> 16));
    for (int r = 0; r < kRuns; ++r) {
      for (int i = 0; i < 4; ++i) out.q[r][i] = (words[i] >> (2 * r)) & 0x03030303u;
      out.scale[r] = mul(d, static_cast<float>((scales >> (8 * r)) & 15u));
      out.offset[r] = -mul(dmin, static_cast<float>((scales >> (8 * r + 4)) & 15u));
    }
  }

  struct RowMajor {
    static constexpr int kPlanes = 1;
    static constexpr int kPlaneBytes[kPlanes] = {kBytes};
    struct Raw {
      uint32_t qs[4];
      uint32_t scales[2];  // of the half: this chunk's are every other byte
      uint32_t dd;
    };
    APR_FN static Raw load(const Planes<kPlanes>& block, int chunk) {
      Raw raw;
      load_words<4, kAlign>(block.p[0] + 16 + 16 * chunk, raw.qs);
      load_words<2, kAlign>(block.p[0] + 8 * (chunk / 2), raw.scales);
      raw.dd = apr::load<uint32_t>(block.p[0] + 80);
      return raw;
    }
    APR_FN static void decode(const Raw& raw, int chunk, IntChunk<kRuns, kRun>& out) {
      unpack(raw.qs, pick_bytes(raw.scales[0], raw.scales[1], chunk % 2 ? 0x7531u : 0x6420u), raw.dd, out);
    }
  };

  // Pairs of bits; per chunk the four {scale, min} bytes of its runs; {d, dmin}. A lane's loads are 16, 4 and
  // 4 bytes.
  struct Planar {
    static constexpr int kPlanes = 3;
    static constexpr int kPlaneBytes[kPlanes] = {64, 16, 4};
    struct Raw {
      U4 qs;
      uint32_t scales;
      uint32_t dd;
    };
    APR_FN static Raw load(const Planes<kPlanes>& block, int chunk) {
      return {apr::load<U4>(block.p[0] + 16 * chunk), apr::load<uint32_t>(block.p[1] + 4 * chunk),
              apr::load<uint32_t>(block.p[2])};
    }
    APR_FN static void decode(const Raw& raw, int, IntChunk<kRuns, kRun>& out) {
      const uint32_t words[4] = {raw.qs.x, raw.qs.y, raw.qs.z, raw.qs.w};
      unpack(words, raw.scales, raw.dd, out);
    }
    static void split(const uint8_t* block, uint8_t* const* plane) {
      __builtin_memcpy(plane[0], block + 16, 64);
      for (int c = 0; c < 4; ++c)
        for (int r = 0; r < 4; ++r) plane[1][4 * c + r] = block[8 * (c / 2) + 2 * r + c % 2];
      __builtin_memcpy(plane[2], block + 80, 4);
    }
  };
};

}  // namespace apr
