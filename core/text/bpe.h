// Byte-pair merging of one word by ranks, on raw bytes: GPT-2's letters for bytes exist only in the file.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/token_index.h"
#include "core/text/vocab.h"

namespace apr {

// From a pair of neighbouring symbols to the merge that joins them.
class MergeTable {
 public:
  struct Merge {
    uint32_t rank;   // lower merges first
    int32_t merged;  // the symbol that the pair becomes
  };

  explicit MergeTable(size_t capacity);
  // An earlier merge of the same pair stays.
  void add(int32_t left, int32_t right, Merge merge);
  // Null when the pair does not merge.
  const Merge* find(int32_t left, int32_t right) const {
    const uint64_t wanted = key(left, right);
    for (size_t i = hash(wanted) & mask_; slots_[i].pair != kFree; i = (i + 1) & mask_) {
      if (slots_[i].pair == wanted) return &slots_[i].merge;
    }
    return nullptr;
  }

 private:
  struct Slot {
    uint64_t pair;
    Merge merge;
  };
  static constexpr uint64_t kFree = ~uint64_t{0};
  static uint64_t key(int32_t left, int32_t right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  }
  static size_t hash(uint64_t pair) {
    pair *= 0x9e3779b97f4a7c15;  // 2^64 / golden ratio: spreads consecutive ids
    return static_cast<size_t>(pair ^ pair >> 29);
  }

  std::vector<Slot> slots_;  // a power of two, at most half full
  size_t mask_;
};

class BpeEncoder {
 public:
  // vocab must outlive the encoder. merges: "left right" in file order, best first (tokenizer.ggml.merges).
  // Appends to warnings what it had to leave out; throws apr::Error for a merge that is not two parts.
  BpeEncoder(const Vocab& vocab, const std::vector<std::string>& merges, std::vector<std::string>& warnings);
  BpeEncoder(const BpeEncoder&) = delete;
  BpeEncoder& operator=(const BpeEncoder&) = delete;

  // Working memory of encode(): reused from word to word, one per thread.
  struct Scratch {
    struct Symbol {
      int32_t id;     // -1: merged into its left neighbour
      uint32_t prev;  // index; kNone at the ends
      uint32_t next;
    };
    struct Candidate {
      uint64_t order;  // rank << 32 | index of the left symbol: the leftmost of the lowest rank is smallest
      int32_t left, right, merged;  // symbol ids when it was found: stale when they have changed since
    };
    std::vector<Symbol> symbols;
    std::vector<Candidate> heap;
  };

  // Appends the word's tokens. O(n log n). word: any bytes, shorter than 2^32.
  // Throws apr::Error when the vocabulary has no token for a byte of it, and no unknown token either.
  void encode(std::string_view word, Scratch& scratch, std::vector<int32_t>& out) const;

 private:
  static constexpr uint32_t kNone = ~uint32_t{0};
  void merge_short(Scratch& scratch) const;
  void merge_long(Scratch& scratch) const;
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
