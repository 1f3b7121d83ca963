// Index of the largest value of each row, the lowest among equals; -1 for a row with a NaN.
#include "generic.h"

APR_GENERIC(apr::ArgmaxArgs) {
  using namespace apr;
  const int token_row = row(), n = shape().n;
  if (token_row >= *args.m || warp() != 0) return;
  const float* x = args.x + static_cast<uint64_t>(token_row) * n;
  float best = minus_infinity();
  int index = 0x7fffffff;
  for (int i = lane(); i < n; i += kLanes) {
    if (x[i] != x[i]) index = -1;
    if (index != -1 && (x[i] > best || (x[i] == best && i < index))) best = x[i], index = i;
  }
  best_of_warp(best, index);
  if (lane() != 0) return;
  args.index[token_row] = index;
  if (token_row == 0) args.next.begin(index);
}
