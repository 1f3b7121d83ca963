// The shape's top_k largest values of each row with their indices, descending; NaN and -1 for a row with a NaN.
#include "generic.h"

APR_GENERIC(apr::TopKArgs) {
  using namespace apr;
  const int token_row = row(), n = shape().n, k = shape().top_k;
  if (token_row >= *args.m || warp() != 0) return;
  const float* x = args.x + static_cast<uint64_t>(token_row) * n;
  Candidate* found = args.best + static_cast<uint64_t>(token_row) * k;
  float last = 0;
  int last_index = -1;
  for (int place = 0; place < k; ++place) {
    // The largest of those that come after the last one found: smaller, or equal with a higher index.
    float best = minus_infinity();
    int index = 0x7fffffff;
    for (int i = lane(); i < n; i += kLanes) {
      if (x[i] != x[i]) index = -1;
      const bool after = place == 0 || x[i] < last || (x[i] == last && i > last_index);
      if (index != -1 && after && (x[i] > best || (x[i] == best && i < index))) best = x[i], index = i;
    }
    best_of_warp(best, index);
    if (index == -1) {
      for (int i = lane(); i < k; i += kLanes) found[i] = {bits_to_float(0x7fc00000u), -1};
      return;
    }
    if (lane() == 0) found[place] = {best, index};
    last = best, last_index = index;
  }
}
