// Weights in device memory: where a block lies in each plane of a layout, how many chunks a block has, and
// the float view.
#pragma once

#include "apr_device.h"

namespace apr {

// Bytes of one block in plane kPlane: a constant expression (a run-time index into a static constexpr array
// has no storage on the device).
template <class Layout, int kPlane>
APR_DEV uint64_t plane_offset(uint32_t block) {
  constexpr uint32_t kBytes = Layout::kPlaneBytes[kPlane];
  return static_cast<uint64_t>(block) * kBytes;
}

template <class Layout>
APR_DEV Planes<Layout::kPlanes> block_planes(const Weight& w, uint32_t block) {
  Planes<Layout::kPlanes> p;
  p.p[0] = w.plane[0] + plane_offset<Layout, 0>(block);
  if constexpr (Layout::kPlanes > 1) p.p[1] = w.plane[1] + plane_offset<Layout, 1>(block);
  if constexpr (Layout::kPlanes > 2) p.p[2] = w.plane[2] + plane_offset<Layout, 2>(block);
  if constexpr (Layout::kPlanes > 3) p.p[3] = w.plane[3] + plane_offset<Layout, 3>(block);
  return p;
}

// The same block in each plane, `blocks` further.
template <class Layout>
APR_DEV Planes<Layout::kPlanes> advance(const Planes<Layout::kPlanes>& from, uint32_t blocks) {
  Planes<Layout::kPlanes> p;
  p.p[0] = from.p[0] + plane_offset<Layout, 0>(blocks);
  if constexpr (Layout::kPlanes > 1) p.p[1] = from.p[1] + plane_offset<Layout, 1>(blocks);
  if constexpr (Layout::kPlanes > 2) p.p[2] = from.p[2] + plane_offset<Layout, 2>(blocks);
  if constexpr (Layout::kPlanes > 3) p.p[3] = from.p[3] + plane_offset<Layout, 3>(blocks);
  return p;
}

template <class Codec>
constexpr int chunk_columns() {
  return Codec::kRuns * Codec::kRun;
}
template <class Codec>
constexpr int block_chunks() {
  return Codec::kBlock / chunk_columns<Codec>();
}

// The greatest power of two that divides a run's length and every run's first column.
template <class Codec>
constexpr int run_alignment() {
  int all = Codec::kRun;
  for (int c = 0; c < block_chunks<Codec>(); ++c)
    for (int run = 0; run < Codec::kRuns; ++run) all |= Codec::col(c, run);
  return all & -all;
}

// The float view of a chunk, whichever kind the codec is: the same bits as dequantize.
template <class Codec, class Layout>
APR_DEV void decode_floats(const typename Layout::Raw& raw, int chunk,
                           FloatChunk<Codec::kRuns, Codec::kRun>& out) {
  if constexpr (Codec::kInteger) {
    IntChunk<Codec::kRuns, Codec::kRun> packed;
    Layout::decode(raw, chunk, packed);
#pragma unroll
    for (int run = 0; run < Codec::kRuns; ++run)
#pragma unroll
      for (int i = 0; i < Codec::kRun; ++i) out.v[run][i] = chunk_value<Codec::kOffset>(packed, run, i);
  } else {
    Layout::decode(raw, chunk, out);
  }
}

}  // namespace apr
