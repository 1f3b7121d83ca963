// From a byte string to its token id: the innermost lookup of both tokenizers.
// Open addressing over one array, the strings stay with their owner: std::unordered_map would cost an allocation and a
// pointer to follow for each token.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace apr {

class TokenIndex {
 public:
  // texts must outlive the index; it may grow, but what was added may not change. expected: how many add()
  // calls will come; more are fine.
  TokenIndex(const std::vector<std::string>& texts, size_t expected)
      : texts_(&texts), slots_(std::bit_ceil(expected * 2 + 2), Slot{0, -1}) {}

  // Adds texts[id]. Returns -1, or the id of the equal text that is already there (then nothing is added).
  int32_t add(int32_t id) {
    const std::string_view text = (*texts_)[static_cast<size_t>(id)];
    const size_t hash = std::hash<std::string_view>{}(text);
    size_t i = hash & (slots_.size() - 1);
    for (; slots_[i].id >= 0; i = (i + 1) & (slots_.size() - 1)) {
      if (matches(slots_[i], hash, text)) return slots_[i].id;
    }
    slots_[i] = {tag(hash), id};
    longest_ = std::max(longest_, text.size());
    if (++used_ * 2 > slots_.size()) grow();
    return -1;
  }

  // -1 when there is none.
  int32_t find(std::string_view text) const {
    if (text.size() > longest_) return -1;
    const size_t hash = std::hash<std::string_view>{}(text);
    for (size_t i = hash & (slots_.size() - 1); slots_[i].id >= 0; i = (i + 1) & (slots_.size() - 1)) {
      if (matches(slots_[i], hash, text)) return slots_[i].id;
    }
    return -1;
  }

 private:
  struct Slot {
    uint32_t tag;  // high half of the hash: nearly every miss ends without touching a string
    int32_t id;    // -1: free
  };
  static uint32_t tag(size_t hash) { return static_cast<uint32_t>(hash >> 32); }
  bool matches(const Slot& slot, size_t hash, std::string_view text) const {
    return slot.tag == tag(hash) && (*texts_)[static_cast<size_t>(slot.id)] == text;
  }
  void grow() {
    std::vector<Slot> old(slots_.size() * 2, Slot{0, -1});
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.id < 0) continue;
      size_t i = std::hash<std::string_view>{}((*texts_)[static_cast<size_t>(slot.id)]) & (slots_.size() - 1);
      while (slots_[i].id >= 0) i = (i + 1) & (slots_.size() - 1);
      slots_[i] = slot;
    }
  }

  const std::vector<std::string>* texts_;
  std::vector<Slot> slots_;  // a power of two, at most half full
  size_t used_ = 0;
  size_t longest_ = 0;  // bytes
};

}  // namespace apr
