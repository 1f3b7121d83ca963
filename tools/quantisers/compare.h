// Our quantisers' errors over the peer's.
#pragma once

#include <cstdint>
#include <string>

#include "tools/quantisers/measure.h"
#include "tools/quantisers/peer.h"

namespace apr::compare {

struct Comparison {
  uint64_t blocks = 0, over = 0;  // over: beyond the limit
  double ours = 0, peers = 0;     // sums of squared block errors
  double worst = 0;               // ratio
  std::string worst_at;           // "normal, block 17"

  double total() const { return ratio_of(ours, peers); }  // of squares
  void add(const Comparison& other);
};

// Both on the same rows, decoded by the peer. limit: the ratio beyond which a block counts as `over`.
Comparison compare(const apr_quant_format& format, const Peer& peer, const Rows& rows, bool with_importance,
                   double limit, ThreadPool& pool);

}  // namespace apr::compare
