/*
name = "gemv_float"
op = "linear"
view = "float"
m = [1, 8]
layouts = ["row_major"]
arch = 80
features = []
summary = "A planted fault for tests: reads W[N,K] as if it were W[K,N]. The parity gate must catch it"
*/
// SEEDED FAULT: transposed. Everything but the order of W's elements is right, so the output is well-scaled and plausible.
#include "tile_activation.h"
#include "tile_codec.h"

namespace apr {

// Element e of W counted in file order.
template <class Segment>
APR_DEV float element(const Weight& w, uint64_t e) {
  using Codec = typename Segment::Codec;
  using Layout = typename Segment::Layout;
  constexpr int kBlocks = ceil_div(spec::kK, Codec::kBlock);
  const int row = static_cast<int>(e / spec::kK), column = static_cast<int>(e % spec::kK);
  const uint32_t block = static_cast<uint32_t>(row * kBlocks + column / Codec::kBlock);
  for (int chunk = 0; chunk < block_chunks<Codec>(); ++chunk) {
    FloatChunk<Codec::kRuns, Codec::kRun> values;
    decode_floats<Codec, Layout>(Layout::load(block_planes<Layout>(w, block), chunk), chunk, values);
    for (int run = 0; run < Codec::kRuns; ++run)
      for (int i = 0; i < Codec::kRun; ++i)
        if (Codec::col(chunk, run) + i == column % Codec::kBlock) return values.v[run][i];
  }
  return 0.0f;
}

template <class Segment>
APR_DEV float dot(const LinearArgs& args, int segment, int n, const float* x, float factor) {
  float sum = 0.0f;
  for (int k = 0; k < spec::kK; ++k) {
    const float v = spec::kNorm ? x[k] * factor * args.norm[k] : x[k];
    sum += v * element<Segment>(args.w[segment], static_cast<uint64_t>(k) * Segment::kN +
                                                     n);  // the fault: n and k change places
  }
  return Segment::kBias ? sum + args.bias[segment][n] : sum;
}

template <int kIndex>
APR_DEV void segments(const LinearArgs& args, int row, const float* x, float factor) {
  if constexpr (kIndex < spec::kSegments) {
    using Segment = typename spec::Segments::template At<kIndex>::type;
    for (int n = blockIdx.x * blockDim.x + threadIdx.x; n < Segment::kN; n += gridDim.x * blockDim.x) {
      float* y = args.y[kIndex] + static_cast<uint64_t>(row) * args.y_stride[kIndex] + n;
      const float v = dot<Segment>(args, kIndex, n, x, factor);
      if constexpr (spec::kEpilogue == kEpilogueSwiglu) {
        using Up = typename spec::Segments::template At<kIndex + 1>::type;
        *y = silu(v) * dot<Up>(args, 1, n, x, factor);
      } else if constexpr (spec::kEpilogue == kEpilogueResidual) {
        *y = v + args.residual[static_cast<uint64_t>(row) * args.y_stride[kIndex] + n];
      } else {
        *y = v;
      }
    }
    if constexpr (spec::kEpilogue != kEpilogueSwiglu) segments<kIndex + 1>(args, row, x, factor);
  }
}

}  // namespace apr

APR_LAUNCH = apr::launch_shape(8, apr::spec::kM, 1, 128, 0, 0, apr::kLaunchPdl, 1, 0);

APR_KERNEL(apr::LinearArgs, 128, 1) {
  using namespace apr;
  pdl_wait();
  pdl_launch();
  const float* x = args.x + static_cast<uint64_t>(blockIdx.y) * spec::kK;
  float squares = 0.0f;
  for (int k = 0; spec::kNorm && k < spec::kK; ++k) squares += x[k] * x[k];
  segments<0>(args, blockIdx.y, x, rsqrtf(squares / spec::kK + args.eps));
}
