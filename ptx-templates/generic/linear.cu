// y = x W^T (+ bias), one matrix, float activations. The prelude names spec::Codec and spec::Layout.
#include "generic.h"

APR_GENERIC(apr::LinearArgs) {
  using namespace apr;
  using Codec = spec::Codec;
  constexpr int kChunks = Codec::kBlock / (Codec::kRuns * Codec::kRun);
  const int token_row = row();
  if (token_row >= *args.m) return;
  const int k = shape().k, n_out = shape().n, blocks = (k + Codec::kBlock - 1) / Codec::kBlock;
  const float* x = args.x + static_cast<uint64_t>(token_row) * k;
  for (int n = warp(); n < n_out; n += warps()) {
    float sum = 0.0f;
    for (int c = lane(); c < blocks * kChunks; c += kLanes) {
      FloatChunk<Codec::kRuns, Codec::kRun> values;
      decode_chunk<Codec, spec::Layout>(args.w[0], static_cast<uint64_t>(n) * blocks + c / kChunks,
                                        c % kChunks, values);
      for (int r = 0; r < Codec::kRuns; ++r)
        for (int i = 0; i < Codec::kRun; ++i) {
          const int column = c / kChunks * Codec::kBlock + Codec::col(c % kChunks, r) + i;
          if (column < k) sum += values.v[r][i] * x[column];
        }
    }
    sum = warp_sum(sum);
    if (lane() == 0)
      args.y[0][static_cast<uint64_t>(token_row) * args.y_stride[0] + n] =
          shape().bias != 0 ? sum + args.bias[0][n] : sum;
  }
}
