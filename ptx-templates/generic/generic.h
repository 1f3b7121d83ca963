// Kernels for shapes that are known at run time only: compiled to PTX when the program is built, they serve where NVRTC is
// missing. Plain and right rather than fast: a warp computes one result, a row of the grid is one token. Tests compile the
// same files for the host, where a warp has one lane.
#pragma once

#include "args.h"
#include "shape.h"

#if defined(APR_GENERIC_HOST)

#include <math.h>

namespace apr::host {
inline thread_local int row = 0;  // of the grid
inline thread_local GenericShape shape;
}  // namespace apr::host
#define APR_GENERIC(Args) static void apr_kernel(const Args& args)

namespace apr {
constexpr int kLanes = 1;
inline const GenericShape& shape() { return host::shape; }
inline int lane() { return 0; }
inline int warp() { return 0; }
inline int warps() { return 1; }
inline int row() { return host::row; }
inline float warp_sum(float v) { return v; }
inline uint16_t to_f16(float x) {
  const _Float16 h = static_cast<_Float16>(x);
  uint16_t bits;
  __builtin_memcpy(&bits, &h, 2);
  return bits;
}
inline void best_of_warp(float&, int&) {}
#define APR_GENERIC_FN inline

#else

extern "C" {
__constant__ apr::GenericShape apr_shape;
// 32 warps a multiprocessor's worth of CTAs; rows of tokens in y.
__constant__ apr::LaunchShape apr_launch = {528, 1, 1, 128, 0, 1, 0, 1, 0};
}
#define APR_GENERIC(Args) \
  extern "C" __global__ void __launch_bounds__(128) apr_kernel(const __grid_constant__ Args args)
#define APR_GENERIC_FN static __device__ __forceinline__

namespace apr {
constexpr int kLanes = 32;
APR_GENERIC_FN const GenericShape& shape() { return apr_shape; }
APR_GENERIC_FN int lane() { return threadIdx.x % 32; }
APR_GENERIC_FN int warp() { return blockIdx.x * 4 + threadIdx.x / 32; }
APR_GENERIC_FN int warps() { return gridDim.x * 4; }
APR_GENERIC_FN int row() { return blockIdx.y; }
APR_GENERIC_FN float warp_sum(float v) {
  for (int d = 16; d > 0; d /= 2) v += __shfl_xor_sync(0xffffffffu, v, d);
  return v;
}
APR_GENERIC_FN uint16_t to_f16(float x) {
  uint16_t r;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(x));
  return r;
}
// Every lane gets the largest value of the warp, and of equals the lowest index. A NaN has index -1 and wins.
APR_GENERIC_FN void best_of_warp(float& value, int& index) {
  for (int d = 16; d > 0; d /= 2) {
    const float other = __shfl_xor_sync(0xffffffffu, value, d);
    const int other_index = __shfl_xor_sync(0xffffffffu, index, d);
    const bool nan = index == -1 || other_index == -1;
    if (nan) {
      index = -1;
    } else if (other > value || (other == value && other_index < index)) {
      value = other;
      index = other_index;
    }
  }
}

#endif

constexpr int kMaxHeadDim = 256;
APR_GENERIC_FN float minus_infinity() { return bits_to_float(0xff800000u); }

template <class Codec, class Layout>
APR_GENERIC_FN void decode_chunk(const Weight& w, uint64_t block, int chunk,
                                 FloatChunk<Codec::kRuns, Codec::kRun>& out) {
  static_assert(Layout::kPlanes == 1, "generic kernels read the file's layout");
  Planes<1> planes;
  planes.p[0] = w.plane[0] + block * Codec::kBytes;
  const auto raw = Layout::load(planes, chunk);
  if constexpr (Codec::kInteger) {
    IntChunk<Codec::kRuns, Codec::kRun> packed;
    Layout::decode(raw, chunk, packed);
    for (int r = 0; r < Codec::kRuns; ++r)
      for (int i = 0; i < Codec::kRun; ++i) out.v[r][i] = chunk_value<Codec::kOffset>(packed, r, i);
  } else {
    Layout::decode(raw, chunk, out);
  }
}

}  // namespace apr
