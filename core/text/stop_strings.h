// Ends a stream of text at the first stop string, without showing any of it: text is held back while it may
// still turn out to be the beginning of one.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace apr {

class StopStrings {
 public:
  // Throws a usage error for an empty string. No strings at all: text passes through.
  explicit StopStrings(std::vector<std::string> stops);

  // The text that can be shown now. However the stream is cut into pieces, the stop string that is complete
  // first wins; of several that end at the same byte, the longest. After it, everything is swallowed.
  std::string push(std::string_view text);
  // No more text comes: what was held back.
  std::string flush();

  // The stop string that was found; null while none was.
  const std::string* found() const { return found_ == kNone ? nullptr : &stops_[found_].text; }

 private:
  static constexpr size_t kNone = ~size_t{0};
  struct Stop {
    std::string text;
    std::vector<size_t> fallback;  // Knuth-Morris-Pratt: longest proper border of the first i bytes
    size_t matched;                // bytes of text that the stream ends with
  };
  std::vector<Stop> stops_;
  std::string held_;      // the longest end of the stream that begins a stop string
  size_t found_ = kNone;  // index into stops_
};

}  // namespace apr
