#include "core/text/merges.h"

#include <algorithm>

namespace apr {

namespace {

// Words up to this many bytes are merged by scanning their pairs for the lowest rank, with no heap to keep:
// English text takes half the time. Lengths from 16 to 64 measure the same; both ways give the same tokens.
constexpr size_t kShortWord = 24;

constexpr uint32_t kNone = MergeScratch::kNone;

void merge_short(const MergeTable& merges, MergeScratch& scratch) {
  auto& symbols = scratch.symbols;
  // pair[i]: the merge of symbol i with its right neighbour.
  const MergeTable::Merge* pair[kShortWord] = {};
  for (size_t i = 0; i + 1 < symbols.size(); ++i) pair[i] = merges.find(symbols[i].id, symbols[i + 1].id);
  while (true) {
    uint32_t best = kNone;
    for (uint32_t i = 0; i != kNone; i = symbols[i].next) {
      if (pair[i] && (best == kNone || pair[i]->rank < pair[best]->rank)) best = i;
    }
    if (best == kNone) return;
    auto& left = symbols[best];
    auto& right = symbols[left.next];
    left.id = pair[best]->merged;
    left.next = right.next;
    if (right.next != kNone) symbols[right.next].prev = best;
    if (left.prev != kNone) pair[left.prev] = merges.find(symbols[left.prev].id, left.id);
    pair[best] = left.next == kNone ? nullptr : merges.find(left.id, symbols[left.next].id);
  }
}

void merge_long(const MergeTable& merges, MergeScratch& scratch) {
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;
  heap.clear();
  const auto later = [](const MergeScratch::Candidate& a, const MergeScratch::Candidate& b) {
    return a.order > b.order;
  };
  const auto candidate = [&](uint32_t at) {
    const auto& left = symbols[at];
    if (left.next == kNone) return false;
    const int32_t right = symbols[left.next].id;
    const MergeTable::Merge* merge = merges.find(left.id, right);
    if (merge) heap.push_back({uint64_t{merge->rank} << 32 | at, left.id, right, merge->merged});
    return merge != nullptr;
  };
  for (uint32_t i = 0; i + 1 < symbols.size(); ++i) candidate(i);
  std::make_heap(heap.begin(), heap.end(), later);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const MergeScratch::Candidate best = heap.back();
    heap.pop_back();
    const auto at = static_cast<uint32_t>(best.order);
    auto& left = symbols[at];
    if (left.id != best.left || left.next == kNone || symbols[left.next].id != best.right) continue;
    auto& right = symbols[left.next];
    left.id = best.merged;
    left.next = right.next;
    right.id = -1;
    if (right.next != kNone) symbols[right.next].prev = at;
    if (left.prev != kNone && candidate(left.prev)) std::push_heap(heap.begin(), heap.end(), later);
    if (candidate(at)) std::push_heap(heap.begin(), heap.end(), later);
  }
}

}  // namespace

MergeTable::MergeTable(size_t capacity)
    : slots_(std::bit_ceil(capacity * 2 + 2), Slot{kFree, {0, -1}}), mask_(slots_.size() - 1) {}

void MergeTable::add(int32_t left, int32_t right, Merge merge) {
  const uint64_t pair = key(left, right);
  size_t i = hash(pair) & mask_;
  for (; slots_[i].pair != kFree; i = (i + 1) & mask_) {
    if (slots_[i].pair == pair) return;
  }
  slots_[i] = {pair, merge};
}

void merge_symbols(const MergeTable& merges, MergeScratch& scratch) {
  if (scratch.symbols.size() <= kShortWord) {
    merge_short(merges, scratch);
  } else {
    merge_long(merges, scratch);
  }
}

}  // namespace apr
