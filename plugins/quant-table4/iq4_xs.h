// IQ4_XS: superblocks of 256 columns, 4.25 bits per weight. A sub-block of 32 columns has a 6-bit scale;
// w = (d * scale) * table[nibble], scale in -32..31.
// Source of the format: ggml's block_iq4_xs, https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
#pragma once

#include "apr/codec.h"

namespace apr {

struct IQ4_XS {
  static constexpr int kBlock = 256;
  static constexpr int kBytes =
      136;  // d as f16, 2 bytes of high and 4 of low bits of the scales, 128 of nibbles
  static constexpr int kAlign = 8;
  static constexpr bool kInteger = true;
  static constexpr bool kOffset = false;
  static constexpr int kGroup = 32;
  static constexpr int kRuns = 2;
  static constexpr int kRun = 16;

  APR_FN static constexpr int col(int chunk, int run) { return 32 * chunk + 16 * run; }

  // The sixteen values of a nibble, as int8 from -127 to 113.
  APR_FN static U4 table() { return {0xbfad9881u, 0xf6eaddcfu, 0x26190d01u, 0x71594535u}; }

  // Byte 16 c + i holds columns 32 c + i (low nibble) and 32 c + 16 + i (high).
  APR_FN static void unpack(const uint32_t words[4], uint16_t d, int scale, IntChunk<kRuns, kRun>& out) {
    for (int i = 0; i < 4; ++i) lookup_nibbles(words[i], table(), out.q[0][i], out.q[1][i]);
    for (int r = 0; r < 2; ++r) {
      out.scale[r] = mul(half_to_float(d), static_cast<float>(scale));
      out.offset[r] = 0.0f;
    }
  }

  // head: the block's first 8 bytes.
  APR_FN static int scale(const U2& head, int chunk) {
    const uint32_t low = head.y >> (4 * chunk), high = head.x >> (16 + 2 * chunk);
    return static_cast<int>((low & 15u) | (high & 3u) << 4) - 32;
  }

  struct RowMajor {
    static constexpr int kPlanes = 1;
    static constexpr int kPlaneBytes[kPlanes] = {kBytes};
    struct Raw {
      U2 head;
      uint32_t qs[4];
    };
    APR_FN static Raw load(const Planes<kPlanes>& block, int chunk) {
      Raw raw;
      raw.head = apr::load<U2>(block.p[0]);
      load_words<4, kAlign>(block.p[0] + 8 + 16 * chunk, raw.qs);
      return raw;
    }
    APR_FN static void decode(const Raw& raw, int chunk, IntChunk<kRuns, kRun>& out) {
      unpack(raw.qs, static_cast<uint16_t>(raw.head.x), scale(raw.head, chunk), out);
    }
  };

  // Nibbles; eight int8 scales; d. A lane's loads are 16, 1 and 2 bytes.
  struct Planar {
    static constexpr int kPlanes = 3;
    static constexpr int kPlaneBytes[kPlanes] = {128, 8, 2};
    struct Raw {
      U4 qs;
      uint8_t scale;
      uint16_t d;
    };
    APR_FN static Raw load(const Planes<kPlanes>& block, int chunk) {
      return {apr::load<U4>(block.p[0] + 16 * chunk), apr::load<uint8_t>(block.p[1] + chunk),
              apr::load<uint16_t>(block.p[2])};
    }
    APR_FN static void decode(const Raw& raw, int, IntChunk<kRuns, kRun>& out) {
      const uint32_t words[4] = {raw.qs.x, raw.qs.y, raw.qs.z, raw.qs.w};
      unpack(words, raw.d, static_cast<int8_t>(raw.scale), out);
    }
    static void split(const uint8_t* block, uint8_t* const* plane) {
      U2 head;
      __builtin_memcpy(&head, block, 8);
      __builtin_memcpy(plane[0], block + 8, 128);
      for (int c = 0; c < 8; ++c) plane[1][c] = static_cast<uint8_t>(IQ4_XS::scale(head, c));
      __builtin_memcpy(plane[2], block, 2);
    }
  };
};

}  // namespace apr
