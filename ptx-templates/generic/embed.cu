// Rows of the embedding matrix as floats. The prelude names spec::Codec and spec::Layout.
#include "generic.h"

APR_GENERIC(apr::EmbedArgs) {
  using namespace apr;
  using Codec = spec::Codec;
  constexpr int kChunks = Codec::kBlock / (Codec::kRuns * Codec::kRun);
  const int token_row = row();
  if (token_row >= *args.m) return;
  const int k = shape().k, blocks = (k + Codec::kBlock - 1) / Codec::kBlock;
  const uint64_t first = static_cast<uint64_t>(args.tokens[token_row]) * blocks;
  float* y = args.y + static_cast<uint64_t>(token_row) * k;
  for (int c = warp() * kLanes + lane(); c < blocks * kChunks; c += warps() * kLanes) {
    FloatChunk<Codec::kRuns, Codec::kRun> values;
    decode_chunk<Codec, spec::Layout>(args.w, first + c / kChunks, c % kChunks, values);
    for (int r = 0; r < Codec::kRuns; ++r)
      for (int i = 0; i < Codec::kRun; ++i) {
        const int column = c / kChunks * Codec::kBlock + Codec::col(c % kChunks, r) + i;
        if (column < k) y[column] = values.v[r][i];
      }
  }
}
