#include "core/text/special_matcher.h"

namespace apr {

uint32_t SpecialMatcher::step(uint32_t node, uint8_t byte) const {
  uint32_t child = nodes_[node].child;
  while (child && nodes_[child].byte != byte) child = nodes_[child].sibling;
  return child;
}

void SpecialMatcher::add(std::string_view text, int32_t id) {
  uint32_t node = 0;
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    uint32_t next = step(node, byte);
    if (!next) {
      next = static_cast<uint32_t>(nodes_.size());
      Node added;
      added.byte = byte;
      added.sibling = nodes_[node].child;
      nodes_.push_back(added);
      nodes_[node].child = next;
      if (node == 0) root_[byte] = next;
    }
    node = next;
  }
  nodes_[node].id = id;
}

SpecialMatcher::Match SpecialMatcher::find(std::string_view text, size_t from) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    Match match{begin, begin, -1};
    size_t at = begin;
    for (uint32_t node = root_[static_cast<uint8_t>(text[at])]; node;) {
      ++at;
      if (nodes_[node].id >= 0) match = {begin, at, nodes_[node].id};
      if (at == text.size()) break;
      node = step(node, static_cast<uint8_t>(text[at]));
    }
    if (match.id >= 0) return match;
  }
  return {text.size(), text.size(), -1};
}

}  // namespace apr
