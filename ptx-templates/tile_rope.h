// One head of q, k or v on its way to attention: RMS norm over the head, rotary embedding. A warp works on one head.
#pragma once

#include "apr_device.h"

namespace apr {

// Cosine and sine of position * inv_freq. The product's float rounding would be up to 1e-3 radians at long contexts, so it
// is reduced to a fraction of a turn in double.
APR_DEV void rope_angle(int position, float inv_freq, float& sine, float& cosine) {
  const double half_turns = static_cast<double>(position) * static_cast<double>(inv_freq) * 0.318309886183790671538;
  const float reduced = static_cast<float>(half_turns - 2.0 * rint(0.5 * half_turns));
  sincospif(reduced, &sine, &cosine);
}

// x[kDim] -> put(dim, value). kNorm: x * rsqrt(mean(x^2) + eps) * weight before the rotation. The first kRotated dims rotate.
template <int kDim, bool kNorm, int kKind, int kRotated, typename Put>
APR_DEV void prepare_head(const float* x, const float* weight, float eps, const float* inv_freq, float rope_scale,
                          int position, const Put& put) {
  const int lane = threadIdx.x % kWarp;
  float factor = 1.0f;
  if constexpr (kNorm) {
    float squares = 0.0f;
#pragma unroll
    for (int d = lane; d < kDim; d += kWarp) squares += x[d] * x[d];
    factor = rsqrtf(warp_sum(squares) / kDim + eps);
  }
  const auto value = [&](int d) { return kNorm ? x[d] * factor * weight[d] : x[d]; };
  constexpr int kTurned = kKind == kRopeNone ? 0 : kRotated;
#pragma unroll
  for (int i = lane; i < kTurned / 2; i += kWarp) {
    const int d0 = kKind == kRopeAdjacent ? 2 * i : i, d1 = kKind == kRopeAdjacent ? 2 * i + 1 : i + kTurned / 2;
    const float a = value(d0), b = value(d1);
    float s, c;
    rope_angle(position, inv_freq[i], s, c);
    put(d0, (a * c - b * s) * rope_scale);
    put(d1, (a * s + b * c) * rope_scale);
  }
#pragma unroll
  for (int d = kTurned + lane; d < kDim; d += kWarp) put(d, value(d));
}

}  // namespace apr
