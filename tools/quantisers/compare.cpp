#include "tools/quantisers/compare.h"

#include <fmt/format.h>

#include <algorithm>

namespace apr::compare {
namespace {

constexpr uint64_t kGrain = 16;  // rows that a thread takes at a time

}  // namespace

void Comparison::add(const Comparison& other) {
  blocks += other.blocks;
  over += other.over;
  ours += other.ours;
  peers += other.peers;
  if (other.worst > worst) worst = other.worst, worst_at = other.worst_at;
}

Comparison compare(const apr_quant_format& format, const Peer& peer, const Rows& rows, bool with_importance,
                   double limit, ThreadPool& pool) {
  const float* importance = with_importance ? rows.importance.data() : nullptr;
  const std::vector<uint8_t> ours = pack(format, rows, importance, pool);
  std::vector<uint8_t> peers(ours.size());
  pool.parallel_for(rows.n(), kGrain, [&](size_t begin, size_t end) {
    const auto part =
        peer.quantize(format, rows.weights.data() + begin * rows.k, end - begin, rows.k, importance);
    std::copy(part.begin(), part.end(),
              peers.begin() + static_cast<int64_t>(begin * (peers.size() / rows.n())));
  });
  const auto decoded = [&](const std::vector<uint8_t>& packed) {
    return block_errors(format, rows, importance,
                        peer.dequantize(format, packed.data(), rows.weights.size()));
  };
  const std::vector<double> our_errors = decoded(ours), peer_errors = decoded(peers);
  Comparison result;
  for (size_t b = 0; b < our_errors.size(); ++b) {
    const double ratio = ratio_of(our_errors[b], peer_errors[b]);
    result.blocks += 1;
    result.over += ratio > limit;
    result.ours += our_errors[b] * our_errors[b];
    result.peers += peer_errors[b] * peer_errors[b];
    if (ratio > result.worst)
      result.worst = ratio, result.worst_at = fmt::format("{}, block {}", rows.name, b);
  }
  return result;
}

}  // namespace apr::compare
