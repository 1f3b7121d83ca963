// F32: plain floats. A codec block is four columns, one 16-byte load.
#pragma once

#include "apr/codec.h"

namespace apr {

struct F32 {
  static constexpr int kBlock = 4;
  static constexpr int kBytes = 16;
  static constexpr int kAlign = 16;
  static constexpr bool kInteger = false;
  static constexpr int kRuns = 1;
  static constexpr int kRun = 4;

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
      for (int i = 0; i < 4; ++i) out.v[0][i] = bits_to_float(words[i]);
    }
  };
};

}  // namespace apr
