// add, swiglu and gather; the prelude names spec::kOp.
#include "generic.h"

APR_GENERIC(apr::ElementwiseArgs) {
  using namespace apr;
  const int token_row = row(), k = shape().k;
  if (token_row >= *args.m) return;
  const uint64_t first = static_cast<uint64_t>(token_row) * k;
  for (int c = warp() * kLanes + lane(); c < k; c += warps() * kLanes) {
    if constexpr (spec::kOp == spec::kAdd) {
      args.y[first + c] = args.a[first + c] + args.b[first + c];
    } else if constexpr (spec::kOp == spec::kSwiglu) {
      const float a = args.a[first + c];
      args.y[first + c] = a / (1.0f + expf(-a)) * args.b[first + c];
    } else {
      args.y[first + c] = args.a[static_cast<uint64_t>(args.rows[token_row]) * k + c];
    }
  }
}
