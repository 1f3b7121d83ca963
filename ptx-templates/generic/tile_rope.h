// Rotation of one pair of a head.
#pragma once

#include "generic.h"

namespace apr {

// x[head_dim] -> put(dim, value): the first rope_dims columns rotated by position, the rest as they are.
template <typename Put>
APR_GENERIC_FN void rotate_head(const float* x, const float* inv_freq, float scale, int position,
                                const Put& put) {
  const int turned = shape().rope_kind == kRopeNone ? 0 : shape().rope_dims;
  for (int i = lane(); i < turned / 2; i += kLanes) {
    const bool adjacent = shape().rope_kind == kRopeAdjacent;
    const int a = adjacent ? 2 * i : i, b = adjacent ? 2 * i + 1 : i + turned / 2;
    // In double: a float's rounding of large angles would be seen at long contexts.
    const double angle = static_cast<double>(position) * static_cast<double>(inv_freq[i]);
    const float c = static_cast<float>(cos(angle)), s = static_cast<float>(sin(angle));
    put(a, (x[a] * c - x[b] * s) * scale);
    put(b, (x[a] * s + x[b] * c) * scale);
  }
  for (int d = turned + lane(); d < shape().head_dim; d += kLanes) put(d, x[d]);
}

}  // namespace apr
