/*
name = "embed"
op = "embed"
view = "float"
m = [1, 0]
layouts = ["planar", "row_major"]
arch = 80
features = []
summary = "Rows of the embedding matrix as floats"
*/
#include "tile_codec.h"

namespace apr::spec {
using Codec = Segment0::Codec;
using Layout = Segment0::Layout;
constexpr int kBlocks = ceil_div(kK, Codec::kBlock);
constexpr int kChunks = kBlocks * block_chunks<Codec>();
constexpr int kThreads = 128;
}  // namespace apr::spec

APR_LAUNCH = apr::launch_shape(apr::ceil_div(apr::spec::kChunks, apr::spec::kThreads), 1, 1,
                               apr::spec::kThreads, 0, 1, apr::kLaunchPdl, 1, 0);

APR_KERNEL(apr::EmbedArgs, apr::spec::kThreads, 1) {
  using namespace apr;
  using spec::Codec;
  pdl_wait();
  pdl_launch();
  const int row = blockIdx.y, c = blockIdx.x * spec::kThreads + threadIdx.x;
  if (row >= *args.m || c >= spec::kChunks) return;
  const int block = c / block_chunks<Codec>(), chunk = c % block_chunks<Codec>();
  // 64-bit: an embedding matrix may have more than 2^31 blocks of single elements.
  const uint64_t first = static_cast<uint64_t>(args.tokens[row]) * spec::kBlocks;
  Weight w = args.w;
#pragma unroll
  for (int p = 0; p < spec::Layout::kPlanes; ++p) w.plane[p] += first * spec::Layout::kPlaneBytes[p];
  const auto raw = spec::Layout::load(block_planes<spec::Layout>(w, block), chunk);
  FloatChunk<Codec::kRuns, Codec::kRun> values;
  decode_floats<Codec, spec::Layout>(raw, chunk, values);
  float* y = args.y + static_cast<uint64_t>(row) * spec::kK;
#pragma unroll
  for (int run = 0; run < Codec::kRuns; ++run) {
    const int column = block * Codec::kBlock + Codec::col(chunk, run);
#pragma unroll
    for (int i = 0; i < Codec::kRun; ++i)
      if (spec::kK % Codec::kBlock == 0 || column + i < spec::kK) y[column + i] = values.v[run][i];
  }
}
