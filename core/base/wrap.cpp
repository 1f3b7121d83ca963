#include "core/base/wrap.h"

#include <algorithm>
#include <cstdint>
#include <string_view>

namespace apr {

namespace {

// Columns, not bytes: a continuation byte of UTF-8 takes none.
size_t columns(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(),
                                           [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; }));
}

}  // namespace

std::string wrapped(const std::string& text, size_t indent, size_t hanging) {
  std::string out, line(indent, ' ');
  bool empty = true;
  const auto end_line = [&] {
    line.resize(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  };
  const auto next_line = [&] { end_line(), line.assign(hanging, ' '), empty = true; };
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find_first_of(" \n", at), text.size());
    const std::string word = text.substr(at, end - at);
    if (!empty && columns(line) + 1 + columns(word) > kTextWidth) next_line();
    line += (empty ? "" : " ") + word;
    empty = false;
    if (end < text.size() && text[end] == '\n') next_line();
    at = end + 1;
  }
  end_line();
  return out;
}

std::string reflowed(const std::string& text) {
  std::string out, block;
  const auto end_block = [&] {
    const bool item = block.starts_with("  ");
    if (!block.empty()) out += wrapped(block.substr(item ? 2 : 0), item ? 2 : 0, item ? 4 : 0);
    block.clear();
  };
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    if (line.empty() || line.starts_with("  ")) end_block();
    if (line.empty())
      out += '\n';
    else
      block += (block.empty() ? "" : " ") + line;
    at = end + 1;
  }
  end_block();
  return out;
}

std::string first_column(const std::string& label, size_t width) {
  const size_t taken = columns(label);
  return taken <= width ? label + std::string(width - taken, ' ') : label + "\n" + std::string(width, ' ');
}

}  // namespace apr
