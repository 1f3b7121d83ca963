// Checks a batch against what is stored, before anything is changed.
#pragma once

#include <apr/backend.h>

#include <cstdint>
#include <vector>

namespace apr::cpu {

class Batches {
 public:
  Batches(uint32_t n_ctx, uint32_t n_sequences, uint32_t n_batch, uint64_t n_tokens_known);

  // Throws Failure APR_INVALID and leaves everything as it was, naming the token of the batch that is wrong.
  void check(const apr_batch& batch);
  // After a step: the batch's positions are stored, and what followed them is forgotten.
  void commit(const apr_batch& batch);
  void forget();  // every sequence is empty again

  const std::vector<uint32_t>& order() const { return order_; }    // rows by sequence, then position
  const std::vector<uint32_t>& wanted() const { return wanted_; }  // rows whose logits are wanted

 private:
  uint32_t n_ctx_, n_sequences_, n_batch_;
  uint64_t n_tokens_known_;
  std::vector<uint32_t> stored_;  // [sequences] positions in the cache
  std::vector<uint32_t> order_, wanted_;
};

}  // namespace apr::cpu
