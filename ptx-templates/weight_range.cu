/*
name = "weight_range"
op = "weight_range"
view = "float"
m = [1, 0]
layouts = ["planar", "row_major"]
arch = 80
features = []
summary = "Largest magnitude of a weight matrix, from which the power of two of its f16 form follows"
*/
#include "tile_codec.h"

namespace apr::spec {
using Codec = Segment0::Codec;
using Layout = Segment0::Layout;
constexpr uint64_t kBlocks = static_cast<uint64_t>(ceil_div(kK, Codec::kBlock)) * Segment0::kN;
constexpr int kThreads = 256;
}  // namespace apr::spec

APR_LAUNCH = apr::launch_shape(apr::spec::kSms * 4, 1, 1, apr::spec::kThreads, 0, 0, 0, 1, 0);

APR_KERNEL(apr::RangeArgs, apr::spec::kThreads, 4) {
  using namespace apr;
  using spec::Codec;
  constexpr uint64_t kChunks = spec::kBlocks * block_chunks<Codec>();
  float largest = 0.0f;
  for (uint64_t c = static_cast<uint64_t>(blockIdx.x) * spec::kThreads + threadIdx.x; c < kChunks;
       c += static_cast<uint64_t>(gridDim.x) * spec::kThreads) {
    const uint32_t block = static_cast<uint32_t>(c / block_chunks<Codec>());
    const int chunk = static_cast<int>(c % block_chunks<Codec>());
    const auto raw = spec::Layout::load(block_planes<spec::Layout>(args.w, block), chunk);
    FloatChunk<Codec::kRuns, Codec::kRun> values;
    decode_floats<Codec, spec::Layout>(raw, chunk, values);
#pragma unroll
    for (int run = 0; run < Codec::kRuns; ++run)
#pragma unroll
      for (int i = 0; i < Codec::kRun; ++i) largest = fmaxf(largest, fabsf(values.v[run][i]));
  }
  largest = warp_max(largest);
  if (threadIdx.x % kWarp == 0) atomicMax(args.bits, __float_as_uint(largest));
}
