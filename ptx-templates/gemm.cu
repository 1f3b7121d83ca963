/*
name = "gemm"
op = "linear"
view = "float"
m = [1, 0]
layouts = ["planar", "row_major"]
arch = 80
features = []
summary = "GEMM for prompts: weights decoded to 16-bit terms in shared memory, tensor cores, float accumulation"
[params]
bm = { values = [0, 64, 128], default = 0, meaning = "rows of X in a tile; 0, here and below: the largest that fits" }
bn = { values = [0, 64, 128], default = 0, meaning = "rows of W in a tile" }
bk = { values = [0, 32, 64, 128], default = 0, meaning = "columns of a tile, raised to what whole chunks of the codec need; 0: by the number of terms" }
stages = { values = [2, 3, 4], default = 2, meaning = "buffers of X tiles" }
split = { values = [0, 1, 2, 4], default = 0, meaning = "CTAs of a cluster that share a tile's columns of W (sm_90); 0: by the number of tiles" }
ctas = { values = [0, 1, 2], default = 0, meaning = "CTAs of a multiprocessor that registers are limited for; 0: as many as shared memory holds" }
[[presets]]
n = [1, 2112]
bits = [17, 32]
capability = [90, 90]
params = { bk = 64, split = 2, ctas = 1 }
why = "at most 66 tiles of two terms: two CTAs a tile fill the device once, and wide tiles halve the barriers (H200: down 166 to 156 us, q, k, v 41 to 34 us)"
*/
#include "tile_gemm.h"

// Chunks that spread over many columns make tiles of many columns, for which fewer rows have to do.
template <int kRowsX, int kRowsW>
constexpr bool kTileFits = apr::Gemm<kRowsX, kRowsW, apr::spec::stages, 1>::kShared <= apr::spec::kMaxShared;
constexpr int kMost = apr::spec::bm != 0 ? apr::spec::bm : 128;
constexpr int kBn = apr::spec::bn != 0 ? apr::spec::bn : kTileFits<kMost, 128> ? 128 : 64;
constexpr int kBm = apr::spec::bm != 0 ? apr::spec::bm : kTileFits<kMost, kBn> ? 128 : 64;
// A multiprocessor has a kilobyte more than it gives one CTA, and each CTA takes one besides its own.
constexpr int kFit =
    2 * (apr::Gemm<kBm, kBn, apr::spec::stages, 1>::kShared + 1024) <= apr::spec::kMaxShared + 1024 ? 2 : 1;
constexpr int kCtas = apr::spec::ctas != 0 ? apr::spec::ctas : kFit;
constexpr int kSplit = apr::spec::split != 0 ? apr::spec::split : apr::gemm_split<kBn>(kCtas);
using Kernel = apr::Gemm<kBm, kBn, apr::spec::stages, kSplit>;

APR_LAUNCH = apr::launch_shape(Kernel::kTilesN * kSplit, 1, 1, Kernel::kThreads, Kernel::kShared, kBm,
                               apr::kLaunchPdl, kSplit, 0);

APR_KERNEL(apr::LinearArgs, Kernel::kThreads, kCtas) { Kernel::run(args); }
