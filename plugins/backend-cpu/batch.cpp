#include "batch.h"

#include <algorithm>

#include "failure.h"

namespace apr::cpu {

Batches::Batches(uint32_t n_ctx, uint32_t n_sequences, uint32_t n_batch, uint64_t n_tokens_known)
    : n_ctx_(n_ctx),
      n_sequences_(n_sequences),
      n_batch_(n_batch),
      n_tokens_known_(n_tokens_known),
      stored_(n_sequences, 0) {
  order_.reserve(n_batch);
  wanted_.reserve(n_batch);
}

void Batches::check(const apr_batch& b) {
  if (b.n == 0) fail(APR_INVALID, "a batch of no tokens");
  if (b.n > n_batch_)
    fail(APR_INVALID, "a batch of %u tokens, but the session was loaded for at most %u", b.n, n_batch_);
  if (!b.tokens || !b.positions || !b.sequences || !b.want)
    fail(APR_INVALID, "a batch without tokens, positions, sequences or want");
  // There is no graph, and nothing to be gained by beginning a step early.
  constexpr uint32_t kKnown = APR_STEP_NO_GRAPH | APR_STEP_GREEDY;
  if (b.flags & ~kKnown) fail(APR_UNSUPPORTED, "unknown flags 0x%x in a batch", b.flags & ~kKnown);
  order_.clear();
  wanted_.clear();
  for (uint32_t i = 0; i < b.n; ++i) {
    if (b.tokens[i] < 0 || static_cast<uint64_t>(b.tokens[i]) >= n_tokens_known_)
      fail(APR_INVALID, "token %u of the batch is %d, but the vocabulary has %llu", i, b.tokens[i],
           static_cast<unsigned long long>(n_tokens_known_));
    if (b.sequences[i] < 0 || static_cast<uint32_t>(b.sequences[i]) >= n_sequences_)
      fail(APR_INVALID, "token %u of the batch is in sequence %d, but the session has %u", i, b.sequences[i],
           n_sequences_);
    if (b.positions[i] < 0 || static_cast<uint32_t>(b.positions[i]) >= n_ctx_)
      fail(APR_INVALID, "token %u of the batch is at position %d, but the session has positions 0..%u", i,
           b.positions[i], n_ctx_ - 1);
    order_.push_back(i);
    if (b.want[i]) wanted_.push_back(i);
  }
  // By sequence, in the batch's order: positions have to ascend in that order already.
  const auto by_sequence = [&](uint32_t x, uint32_t y) {
    return b.sequences[x] != b.sequences[y] ? b.sequences[x] < b.sequences[y] : x < y;
  };
  // Most batches are of one sequence, or have one token of each.
  if (!std::is_sorted(order_.begin(), order_.end(), by_sequence))
    std::sort(order_.begin(), order_.end(), by_sequence);
  for (uint32_t j = 0; j < b.n; ++j) {
    const uint32_t i = order_[j];
    const int32_t s = b.sequences[i], p = b.positions[i];
    if (j > 0 && b.sequences[order_[j - 1]] == s) {
      const int32_t before = b.positions[order_[j - 1]];
      if (p != before + 1)
        fail(APR_INVALID,
             "token %u of the batch is at position %d of sequence %d, after position %d: positions must "
             "be "
             "consecutive",
             i, p, s, before);
    } else if (static_cast<uint32_t>(p) > stored_[static_cast<size_t>(s)]) {
      fail(APR_INVALID,
           "token %u of the batch is at position %d of sequence %d, which has %u stored: the positions "
           "between are missing",
           i, p, s, stored_[static_cast<size_t>(s)]);
    }
  }
}

void Batches::commit(const apr_batch& b) {
  for (const uint32_t i : order_)
    stored_[static_cast<size_t>(b.sequences[i])] = static_cast<uint32_t>(b.positions[i]) + 1;
}

void Batches::forget() { std::fill(stored_.begin(), stored_.end(), 0); }

}  // namespace apr::cpu
