// The primitives of the derived kernels in plain C++: any processor, and the reference for the fast ones.
#pragma once

#include "apr/codec.h"
#include "apr/cpu/target.hpp"
#include "apr/quant.h"

APR_REGION_PORTABLE_BEGIN;
namespace apr::cpu::portable {

// Eight independent lanes let the compiler use whatever vectors the baseline has without reassociating
// anything.
struct Sum {
  float lane[8] = {};
};

APR_FN float total(const Sum& sum) {
  const float* s = sum.lane;
  return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
}

template <int kGroup, bool kOffset>
APR_FN void dot_int(Sum& sum, const int8_t* w, const float* scale, const float* offset, const int8_t* x,
                    const float* xscale, const float* xsum, int blocks) {
  for (int b = 0; b < blocks; ++b) {
    for (int g = 0; g < 32 / kGroup; ++g) {
      const int group = b * (32 / kGroup) + g;
      int32_t dot = 0;
      for (int i = 0; i < kGroup; ++i) dot += int32_t{w[group * kGroup + i]} * x[group * kGroup + i];
      sum.lane[group % 8] += scale[group] * xscale[b] * static_cast<float>(dot);
      if constexpr (kOffset) {
        const float s = kGroup == 16 ? xsum[group] : xsum[2 * b] + xsum[2 * b + 1];
        sum.lane[group % 8] += offset[group] * s;
      }
    }
  }
}

APR_FN void dot_float(Sum& sum, const float* w, const float* x, int columns) {
  for (int k = 0; k + 8 <= columns; k += 8)
    for (int i = 0; i < 8; ++i) sum.lane[i] += w[k + i] * x[k + i];
  for (int k = columns / 8 * 8; k < columns; ++k) sum.lane[k % 8] += w[k] * x[k];
}

template <int kGroup, bool kOffset>
APR_FN void scale_to_float(const int8_t* q, const float* scale, const float* offset, int columns, float* w) {
  for (int k = 0; k < columns; ++k) {
    w[k] = mul(scale[k / kGroup], static_cast<float>(q[k]));
    if constexpr (kOffset) w[k] = add(w[k], offset[k / kGroup]);
  }
}

#include "apr/cpu/derived.inl"

}  // namespace apr::cpu::portable
APR_REGION_PORTABLE_END;
