// Q8_0: 32 columns share a scale, 8.5 bits per weight. w = d * q, q in -128..127.
// Source of the format: ggml's block_q8_0, https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
#pragma once

#include "apr/codec.h"

namespace apr {

struct Q8_0 {
  static constexpr int kBlock = 32;
  static constexpr int kBytes = 34;
  static constexpr int kAlign = 2;
  static constexpr bool kInteger = true;
  static constexpr bool kOffset = false;
  static constexpr int kGroup = 32;
  static constexpr int kRuns = 1;
  static constexpr int kRun = 32;

  APR_FN static constexpr int col(int, int) { return 0; }

  struct RowMajor {
    static constexpr int kPlanes = 1;
    static constexpr int kPlaneBytes[kPlanes] = {kBytes};
    struct Raw {
      uint32_t qs[8];
      uint16_t d;
    };
    APR_FN static Raw load(const Planes<kPlanes>& block, int) {
      Raw raw;
      raw.d = apr::load<uint16_t>(block.p[0]);
      load_words<8, kAlign>(block.p[0] + 2, raw.qs);
      return raw;
    }
    APR_FN static void decode(const Raw& raw, int, IntChunk<kRuns, kRun>& out) {
      for (int i = 0; i < 8; ++i) out.q[0][i] = raw.qs[i];
      out.scale[0] = half_to_float(raw.d);
      out.offset[0] = 0.0f;
    }
  };

  // The first 16 columns of every block; the last 16; d. Two planes, so that neighbouring lanes' 16-byte
  // loads touch: in one plane of 32 bytes each load of a warp would use half of every sector that it fetches.
  struct Planar {
    static constexpr int kPlanes = 3;
    static constexpr int kPlaneBytes[kPlanes] = {16, 16, 2};
    struct Raw {
      U4 first, last;
      uint16_t d;
    };
    APR_FN static Raw load(const Planes<kPlanes>& block, int) {
      return {apr::load<U4>(block.p[0]), apr::load<U4>(block.p[1]), apr::load<uint16_t>(block.p[2])};
    }
    APR_FN static void decode(const Raw& raw, int, IntChunk<kRuns, kRun>& out) {
      const uint32_t words[8] = {raw.first.x, raw.first.y, raw.first.z, raw.first.w,
                                 raw.last.x,  raw.last.y,  raw.last.z,  raw.last.w};
      for (int i = 0; i < 8; ++i) out.q[0][i] = words[i];
      out.scale[0] = half_to_float(raw.d);
      out.offset[0] = 0.0f;
    }
    static void split(const uint8_t* block, uint8_t* const* plane) {
      __builtin_memcpy(plane[0], block + 2, 16);
      __builtin_memcpy(plane[1], block + 18, 16);
      __builtin_memcpy(plane[2], block, 2);
    }
  };
};

}  // namespace apr
