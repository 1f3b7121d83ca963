// Text for terminals of 80 columns.
#pragma once

#include <cstddef>
#include <string>

namespace apr {

inline constexpr size_t kTextWidth = 80;

// Words in lines of at most kTextWidth columns, each ended by a newline: the first after `indent` spaces, the others after
// `hanging`; line feeds of the text are kept. A word that is longer than a line (a path) has a line of its own.
std::string wrapped(const std::string& text, size_t indent, size_t hanging);
inline std::string wrapped(const std::string& text, size_t indent) { return wrapped(text, indent, indent); }

}  // namespace apr
