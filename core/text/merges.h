// Byte-pair merging by ranks: what byte-level BPE and BPE over characters share.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

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

// Working memory of merge_symbols(): reused from word to word, one per thread.
struct MergeScratch {
  static constexpr uint32_t kNone = ~uint32_t{0};
  struct Symbol {
    int32_t id;     // -1: merged into its left neighbour
    uint32_t prev;  // index; kNone at the ends
    uint32_t next;
  };
  struct Candidate {
    uint64_t order;  // rank << 32 | index of the left symbol: the leftmost of the lowest rank is smallest
    int32_t left, right, merged;  // symbol ids when it was found: stale when they have changed since
  };
  std::vector<Symbol> symbols;  // a list that begins with the first
  std::vector<Candidate> heap;

  // Appends a symbol to the list.
  void add(int32_t id) {
    const auto at = static_cast<uint32_t>(symbols.size());
    if (at > 0) symbols.back().next = at;
    symbols.push_back({id, at - 1, kNone});  // at - 1 is kNone for the first
  }
};

// Joins neighbours, the lowest rank first and the leftmost among equals, until no pair merges. O(n log n).
void merge_symbols(const MergeTable& merges, MergeScratch& scratch);

}  // namespace apr
