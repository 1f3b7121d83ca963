// One head of q, k or v on its way to attention: RMS norm over the head, rotary embedding. A warp works on
// one head.
#pragma once

#include "apr_device.h"

namespace apr {

// Cosine and sine of position * inv_freq. The product's float rounding would be up to 1e-3 radians at long
// contexts, so it is reduced to a fraction of a turn in double.
APR_DEV void rope_angle(int position, float inv_freq, float& sine, float& cosine) {
  const double half_turns =
      static_cast<double>(position) * static_cast<double>(inv_freq) * 0.318309886183790671538;
  const float reduced = static_cast<float>(half_turns - 2.0 * rint(0.5 * half_turns));
  sincospif(reduced, &sine, &cosine);
}

// The angles of one position, as a warp needs them: pair i is lane i % 32's. They depend on no other kernel
// of the step.
template <int kKind, int kRotated>
struct RopeAngles {
  static constexpr int kTurned = kKind == kRopeNone ? 0 : kRotated;
  static constexpr int kMine = max_of(1, ceil_div(kTurned / 2, kWarp));
  float sine[kMine], cosine[kMine];
  __device__ __forceinline__ void set(const float* inv_freq, int position) {
#pragma unroll
    for (int n = 0; n < kMine; ++n) {
      const int i = threadIdx.x % kWarp + n * kWarp;
      if (i < kTurned / 2) rope_angle(position, inv_freq[i], sine[n], cosine[n]);
    }
  }
};

// x[kDim] -> put(dim, value). kNorm: x * rsqrt(mean(x^2) + eps) * weight before the rotation. The first
// kRotated dims rotate.
template <int kDim, bool kNorm, int kKind, int kRotated, typename Put>
APR_DEV void prepare_head(const float* x, const float* weight, float eps,
                          const RopeAngles<kKind, kRotated>& angles, float rope_scale, const Put& put) {
  const int lane = threadIdx.x % kWarp;
  float factor = 1.0f;
  if constexpr (kNorm) {
    float squares = 0.0f;
#pragma unroll
    for (int d = lane; d < kDim; d += kWarp) squares += x[d] * x[d];
    factor = rsqrtf(warp_sum(squares) / kDim + eps);
  }
  const auto value = [&](int d) { return kNorm ? x[d] * factor * weight[d] : x[d]; };
  constexpr int kTurned = RopeAngles<kKind, kRotated>::kTurned;
#pragma unroll
  for (int n = 0; n < ceil_div(kTurned / 2, kWarp); ++n) {
    const int i = lane + n * kWarp;
    if (i >= kTurned / 2) break;
    const int d0 = kKind == kRopeAdjacent ? 2 * i : i,
              d1 = kKind == kRopeAdjacent ? 2 * i + 1 : i + kTurned / 2;
    const float a = value(d0), b = value(d1), s = angles.sine[n], c = angles.cosine[n];
    put(d0, (a * c - b * s) * rope_scale);
    put(d1, (a * s + b * c) * rope_scale);
  }
#pragma unroll
  for (int d = kTurned + lane; d < kDim; d += kWarp) put(d, value(d));
}

}  // namespace apr
