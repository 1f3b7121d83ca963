// Text for terminals of 80 columns.
#pragma once

#include <cstddef>
#include <string>

namespace apr {

inline constexpr size_t kTextWidth = 80;

// Words in lines of at most kTextWidth columns, each ended by a newline: the first after `indent` spaces, the others after
// `hanging`; line feeds of the text are kept. A word that is longer than a line (a path) has a line of its own. No line
// ends in spaces.
std::string wrapped(const std::string& text, size_t indent, size_t hanging);
inline std::string wrapped(const std::string& text, size_t indent) { return wrapped(text, indent, indent); }

// Text as it is written in a source, whose line feeds mean nothing: paragraphs, which blank lines separate, each wrapped
// to kTextWidth. A line that begins with two spaces is an item of a list: it begins a line of its own, those that it
// takes beside are indented by four.
std::string reflowed(const std::string& text);

// The first column of a table's row, filled up to `width`. A longer label has a line of its own, and the row goes on below
// it: nothing is cut, and the other columns stay where they are.
std::string first_column(const std::string& label, size_t width);

}  // namespace apr
