#include "core/base/wrap.h"

#include <algorithm>

namespace apr {

std::string wrapped(const std::string& text, size_t indent, size_t hanging) {
  std::string out, line(indent, ' ');
  bool empty = true;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(' ', at), text.size());
    const std::string word = text.substr(at, end - at);
    if (!empty && line.size() + 1 + word.size() > kTextWidth)
      out += line + "\n", line.assign(hanging, ' '), empty = true;
    line += (empty ? "" : " ") + word;
    empty = false;
    at = end + 1;
  }
  return out + line + "\n";
}

}  // namespace apr
