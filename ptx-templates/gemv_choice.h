// A GEMV's geometry: how chunks of a row fall to lanes, and the parameters that a profile left open, from the
// shape.
#pragma once

#include "tile_codec.h"

namespace apr {

// A lane group's geometry for one codec.
template <class Codec, int kK, int kLanes, int kSplit, int kDepth>
struct GemvShape {
  static constexpr int kBlocks = ceil_div(kK, Codec::kBlock);  // of a row
  static constexpr int kChunks = kBlocks * block_chunks<Codec>();
  static constexpr int kIters = ceil_div(kChunks, kLanes* kSplit);
  static constexpr bool kWhole = kChunks % (kLanes * kSplit) == 0;  // no lane idles in the last iteration
  // From iteration to iteration a lane stays on the same chunk of a block, kStride blocks further: addresses
  // advance by constants. Otherwise they are computed each time.
  static constexpr bool kRegular = kLanes * kSplit % block_chunks<Codec>() == 0;
  static constexpr int kStride = kLanes * kSplit / block_chunks<Codec>();
  static constexpr int kPaddedIters =
      round_up(kIters, kDepth);  // so that an iteration's buffer slot is a constant
  static constexpr int kColumns =
      round_up(kLanes * kSplit * kIters, block_chunks<Codec>()) / block_chunks<Codec>() * Codec::kBlock;
};

// Columns that the activations in shared memory cover, over the first kSegments segments.
template <int kSegments, int kLanes, int kSplit, int kDepth>
constexpr int gemv_columns() {
  if constexpr (kSegments == 0) {
    return 0;
  } else {
    using Codec = typename spec::Segments::template At<kSegments - 1>::type::Codec;
    return max_of(gemv_columns<kSegments - 1, kLanes, kSplit, kDepth>(),
                  GemvShape<Codec, spec::kK, kLanes, kSplit, kDepth>::kColumns);
  }
}

// Whether a lane of each segment advances by a multiple of so many columns.
template <int kSegments, int kLanes, int kSplit>
constexpr bool gemv_strides(int columns) {
  if constexpr (kSegments == 0) {
    return true;
  } else {
    using Codec = typename spec::Segments::template At<kSegments - 1>::type::Codec;
    using Shape = GemvShape<Codec, spec::kK, kLanes, kSplit, 1>;
    return Shape::kRegular && Shape::kStride * Codec::kBlock % columns == 0 &&
           gemv_strides<kSegments - 1, kLanes, kSplit>(columns);
  }
}

// ---- parameters that were left to the shape (0) -----------------------------------------------------------

struct GemvChoice {
  int lanes, rows, depth, warps, split, ctas, ahead;
};

template <int kSegments>
constexpr int widest_raw() {  // words that a lane holds of one chunk
  if constexpr (kSegments == 0) {
    return 1;
  } else {
    return max_of(
        widest_raw<kSegments - 1>(),
        ceil_div(sizeof(typename spec::Segments::template At<kSegments - 1>::type::Layout::Raw), 4));
  }
}
template <int kSegments>
constexpr int results() {
  if constexpr (kSegments == 0) {
    return 0;
  } else {
    return results<kSegments - 1>() + spec::Segments::template At<kSegments - 1>::type::kN;
  }
}

template <int kSegments>
constexpr int64_t weight_bytes() {
  if constexpr (kSegments == 0) {
    return 0;
  } else {
    using Segment = typename spec::Segments::template At<kSegments - 1>::type;
    return weight_bytes<kSegments - 1>() + static_cast<int64_t>(Segment::kN) *
                                               ceil_div(spec::kK, Segment::Codec::kBlock) *
                                               Segment::Codec::kBytes;
  }
}

// Rows of so many iterations are unrolled whole: around a loop the ring's slots change places, which costs a move
// for each of their registers.
constexpr int kUnrolledIters = 9;

// Share of a multiprocessor's time, in percent, in which so many pieces at once have work.
constexpr int busy(int pieces, int at_once) {
  const int slots = spec::kSms * at_once;
  return pieces * 100 / (ceil_div(pieces, slots) * slots);
}

// What measured best on an H200 over the shapes of models from 0.5 to 8 billion weights
// (docs/benchmarks-kernels.md). prepares: every CTA works on the activations before it can begin.
constexpr GemvChoice choose_gemv(GemvChoice c, bool prepares) {
  using Codec = typename spec::Segments::template At<0>::type::Codec;
  constexpr bool kPair = spec::kEpilogue == kEpilogueSwiglu,
                 kQuantise = kPair && spec::kOutput == kOutputInt8,
                 kOne = Codec::kInteger && spec::kM == 1;  // rules for integers are measured for one token
  constexpr int kChunks = ceil_div(spec::kK, Codec::kBlock) * block_chunks<Codec>();
  constexpr int kResults = kPair ? results<1>() : results<spec::kSegments>();
  // Twelve warps with registers for four results each; they make three blocks of int8 at once, and eight warps in
  // two CTAs make two.
  constexpr int kResultBlocks = ceil_div(kResults, kActBlock);
  const bool free = c.lanes == 0 && c.rows == 0 && c.warps == 0 && c.split == 0;
  if (kOne && kQuantise && free && kChunks <= 128 && busy(kResultBlocks, 3) + 5 > busy(kResultBlocks, 2)) {
    c.lanes = kChunks <= 64 ? 8 : 16;  // as few as leave a row short enough to be unrolled
    c.rows = c.lanes / 4, c.warps = 12, c.split = 1;
    if (c.depth == 0) c.depth = min_of(3, ceil_div(kChunks, c.lanes));
  }
  // Few results behind a preparation, in one round: again four a warp, or rows of wide chunks shared by all warps.
  if (kOne && !kPair && free && prepares && spec::kK >= 1536 && kResults <= spec::kSms * 12 * 4) {
    if (chunk_columns<Codec>() <= 32 || kChunks < 48) {
      c.lanes = 8, c.rows = 1, c.warps = 12, c.split = 1;
      if (c.depth == 0) c.depth = min_of(4, ceil_div(kChunks, c.lanes));
    } else {
      c.warps = 16, c.split = 8;
    }
  }
  if (c.lanes == 0) {
    // Fewer lanes where a tenth of them would otherwise idle.
    c.lanes = 32;
    for (int l = 16; l >= 8; l /= 2)
      if (ceil_div(kChunks, c.lanes) * c.lanes * 10 > ceil_div(kChunks, l) * l * 11) c.lanes = l;
  }
  // Lanes read activations of wide chunks far from each other: once for more rows.
  const bool long_rows = kOne && !kPair && !prepares && kChunks >= c.lanes * 8;
  if (c.rows == 0) c.rows = long_rows && chunk_columns<Codec>() > 32 ? 4 : 2;
  const int tasks = ceil_div(kResults, kWarp / c.lanes * (kPair ? max_of(1, c.rows / 2) : c.rows));
  // The longest by four warps each.
  if (long_rows && kChunks >= c.lanes * 16 && c.warps == 0 && c.split == 0) c.warps = 8, c.split = 4;
  // One round of tasks behind a long preparation: do that once for a multiprocessor, not twice.
  const bool once = prepares && spec::kK >= 2048 && tasks <= spec::kSms * 16;
  // Chunks that take many registers, and floats, whose arithmetic is nothing: one large CTA.
  const bool large = once || !Codec::kInteger || widest_raw<spec::kSegments>() > 8;
  if (c.warps == 0) c.warps = large ? 16 : 8;
  if (c.ctas == 0) c.ctas = max_of(1, 16 / c.warps);
  if (c.split == 0) {
    // As many warps as a multiprocessor holds, as long as each has work for more than one iteration.
    c.split = 1;
    const int slots = spec::kSms * c.ctas * c.warps;
    while (!kQuantise && c.split < 8 && tasks * c.split * 2 * 10 <= slots * 11 &&
           kChunks * 2 >= c.lanes * c.split * 2 * 3 && c.warps % (2 * c.split) == 0)
      c.split *= 2;
    if (c.split > 1 && c.warps / c.split > 8) c.split = 1;  // barriers are few
    // Rounds of tasks whose last one is nearly empty: half as long tasks for twice as many. Only floats have
    // instructions to spare for the exchange.
    const int idle1 = ceil_div(tasks, slots) * slots * 100 / tasks,
              idle2 = ceil_div(tasks * 2, slots) * slots * 50 / tasks;
    if (!Codec::kInteger && c.split == 1 && tasks > slots && idle2 + 5 <= idle1 && c.warps % 2 == 0 &&
        c.warps <= 16 && kChunks >= c.lanes * 3)
      c.split = 2;
  }
  if (c.depth == 0) {
    const int iters = ceil_div(kChunks, c.lanes * c.split),
              fits = max_of(1, 48 / (c.rows * widest_raw<spec::kSegments>()));
    const bool loops = Codec::kInteger && iters > kUnrolledIters && widest_raw<spec::kSegments>() > 5;
    c.depth = min_of(min_of(once || loops ? 2 : 4, fits), iters);
    // Floats leave registers for more, where that divides the iterations.
    for (int d = 5; d <= 6 && !Codec::kInteger && !once; ++d)
      if (d <= fits && iters % d == 0 && iters % c.depth != 0) c.depth = d;
  }
  // Weights for some microseconds: what is asked for while the previous kernel ends is worth it.
  if (c.ahead == 0) c.ahead = Codec::kInteger && weight_bytes<spec::kSegments>() >= 16 << 20 ? 32 : 1;
  return c;
}

}  // namespace apr
