// Codecs whose chunks have shapes that no shipped format has, but the contract allows: runs that reach over blocks of
// activations and over padding, runs shorter than both, chunks spread over 256 columns. A scale, an offset and a byte for each
// column.
#pragma once

#include "apr/codec.h"

namespace shapes {

// kStep: columns from one run of a chunk to the next.
template <int kColumns, int kRunsOfChunk, int kRunLength, int kStep>
struct Bytes {
  static constexpr int kBlock = kColumns, kBytes = kColumns + 4, kAlign = 4;
  static constexpr int kParts[] = {2, 2, kColumns};
  static constexpr bool kInteger = true, kOffset = true;
  static constexpr int kGroup = kColumns, kRuns = kRunsOfChunk, kRun = kRunLength;
  APR_FN static constexpr int col(int chunk, int run) {
    return kStep == kRun ? (chunk * kRuns + run) * kRun : kRun * chunk + kStep * run;
  }

  struct Raw {
    uint16_t d, offset;
    uint32_t q[kRuns][kRun / 4];
  };
  APR_FN static Raw load(const auto& block, int chunk) {
    Raw raw;
    apr::load_part<0>(block, 0, raw.d);
    apr::load_part<1>(block, 0, raw.offset);
    for (int r = 0; r < kRuns; ++r)
      for (int i = 0; i < kRun / 4; ++i) apr::load_part<2>(block, col(chunk, r) + 4 * i, raw.q[r][i]);
    return raw;
  }
  APR_FN static void decode(const Raw& raw, int, apr::IntChunk<kRuns, kRun>& out) {
    for (int r = 0; r < kRuns; ++r) {
      for (int i = 0; i < kRun / 4; ++i) out.q[r][i] = raw.q[r][i];
      out.scale[r] = apr::half_to_float(raw.d);
      out.offset[r] = apr::half_to_float(raw.offset);
    }
  }
};

using Runs12 = apr::InParts<Bytes<96, 8, 12, 12>>;
using Runs24 = apr::InParts<Bytes<96, 4, 24, 24>>;
using Run96 = apr::InParts<Bytes<96, 1, 96, 96>>;
using Run256 = apr::InParts<Bytes<256, 1, 256, 256>>;
using Spread = apr::InParts<Bytes<256, 4, 16, 64>>;

}  // namespace shapes
