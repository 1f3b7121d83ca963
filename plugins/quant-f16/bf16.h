// BF16: the upper half of a binary32. A codec block is eight columns, one 16-byte load.
#pragma once

#include "apr/codec.h"

namespace apr {

struct BF16 {
  static constexpr int kBlock = 8;
  static constexpr int kBytes = 16;
  static constexpr int kAlign = 16;
  static constexpr bool kInteger = false;
  static constexpr int kRuns = 1;
  static constexpr int kRun = 8;

  APR_FN static constexpr int col(int, int) { return 0; }

  struct RowMajor {
    static constexpr int kPlanes = 1;
    static constexpr int kPlaneBytes[kPlanes] = {kBytes};
    struct Raw {
      U4 v;
    };
    APR_FN static Raw load(const Planes<kPlanes>& block, int) { return {apr::load<U4>(block.p[0])}; }
    APR_FN static void decode(const Raw& raw, int, FloatChunk<kRuns, kRun>& out) {
      const uint32_t words[4] = {raw.v.x, raw.v.y, raw.v.z, raw.v.w};
      for (int i = 0; i < 4; ++i) {
        out.v[0][2 * i] = bfloat_to_float(static_cast<uint16_t>(words[i]));
        out.v[0][2 * i + 1] = bfloat_to_float(static_cast<uint16_t>(words[i] >> 16));
      }
    }
  };
};

}  // namespace apr
