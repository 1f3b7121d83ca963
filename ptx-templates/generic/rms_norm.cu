// RMS norm of rows, or of groups within a row.
#include "generic.h"

APR_GENERIC(apr::NormArgs) {
  using namespace apr;
  const int token_row = row();
  if (token_row >= *args.m) return;
  const int k = shape().k;
  for (int g = warp(); g < shape().groups; g += warps()) {
    const float* x = args.x + static_cast<uint64_t>(token_row) * args.x_stride + g * k;
    float* y = args.y + (static_cast<uint64_t>(token_row) * shape().groups + g) * k;
    float squares = 0.0f;
    for (int c = lane(); c < k; c += kLanes) squares += x[c] * x[c];
    const float factor = 1.0f / sqrtf(warp_sum(squares) / k + args.eps);
    for (int c = lane(); c < k; c += kLanes) y[c] = x[c] * factor * args.weight[c];
  }
}
