// Text for people: sizes with units, and strings from files made safe to print.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>

namespace apr {

constexpr size_t kLongPath = 4096;  // bytes of a path that an error still shows whole

// Exact below 1 KiB, then binary units with three significant digits: "18 B", "1.50 GiB".
std::string human_bytes(uint64_t bytes);

// 1536 -> "1.54K", 1540000000 -> "1.54B": decimal, as parameter counts are usually given.
std::string human_count(uint64_t count);

// 0 for no elements.
double bits_per_weight(uint64_t bytes, uint64_t elements);

// Names and values from a file may hold anything. Valid UTF-8 stays as it is; control characters and broken
// sequences become \xNN, so that a file cannot send escape sequences to the terminal or break JSON; text over
// max_bytes is cut and ends in "…".
std::string printable(std::string_view text, size_t max_bytes = 128);

// "4096, 32000": every item as fmt prints it. Here because fmt 9's own join makes g++ 12 warn
// (-Wstringop-overflow).
template <typename Range>
std::string joined(const Range& items, std::string_view separator = ", ") {
  std::string out;
  bool first = true;
  for (const auto& item : items) {
    if (!first) out += separator;
    first = false;
    fmt::format_to(std::back_inserter(out), "{}", item);
  }
  return out;
}

// The length in bytes of the valid UTF-8 sequence that text begins with (1 to 4); 0 when there is none:
// overlong forms, surrogates, values above U+10FFFF, stray continuation bytes and cut sequences are not
// valid.
size_t utf8_length(std::string_view text);

}  // namespace apr
