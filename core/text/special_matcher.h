// Finds the texts of special tokens in a text, leftmost first and the longest of those that begin there, as
// Hugging Face's tokenizers do. A trie: one step a byte, however many special tokens share a beginning.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace apr {

class SpecialMatcher {
 public:
  struct Match {
    size_t begin, end;  // bytes of the text; begin == end: nothing was found
    int32_t id;
  };

  // text must not be empty.
  void add(std::string_view text, int32_t id);
  bool empty() const { return nodes_.size() == 1; }
  // The first match at or after from.
  Match find(std::string_view text, size_t from) const;

 private:
  struct Node {
    int32_t id = -1;       // token that ends here
    uint32_t child = 0;    // first child; 0: none
    uint32_t sibling = 0;  // next child of the same parent; 0: none
    uint8_t byte = 0;      // on the edge to this node
  };
  uint32_t step(uint32_t node, uint8_t byte) const;

  std::vector<Node> nodes_ = std::vector<Node>(1);
  uint32_t root_[256] = {};  // children of the root by byte: most bytes of a text end the search here
};

}  // namespace apr
