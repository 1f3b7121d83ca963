// Byte-pair merging of one word by ranks, on raw bytes: GPT-2's letters for bytes exist only in the file.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/merges.h"
#include "core/text/token_index.h"
#include "core/text/vocab.h"

namespace apr {

class BpeEncoder {
 public:
  // vocab must outlive the encoder. merges: "left right" in file order, best first (tokenizer.ggml.merges).
  // Appends to warnings what it had to leave out; throws apr::Error for a merge that is not two parts.
  BpeEncoder(const Vocab& vocab, const std::vector<std::string>& merges, std::vector<std::string>& warnings);
  BpeEncoder(const BpeEncoder&) = delete;
  BpeEncoder& operator=(const BpeEncoder&) = delete;

  using Scratch = MergeScratch;

  // Appends the word's tokens. O(n log n). word: any bytes, shorter than 2^32.
  // Throws apr::Error when the vocabulary has no token for a byte of it, and no unknown token either.
  void encode(std::string_view word, Scratch& scratch, std::vector<int32_t>& out) const;

 private:
  void emit(int32_t symbol, std::vector<int32_t>& out) const;

  const Vocab* vocab_;
  // Symbols are token ids; from vocab size on, strings that merges produce on their way but that are no
  // tokens.
  std::vector<std::string> strings_;  // by symbol: its bytes
  TokenIndex index_;                  // mergeable tokens and the extra strings
  MergeTable merges_;
  int32_t single_[256];  // symbol of each byte
};

}  // namespace apr
