// Regular expressions of tokenizer.json in the dialect of the pre-tokenizers here. Private to core/hf.
#pragma once

#include <string>
#include <string_view>

namespace apr {

// The files' expressions are written for Oniguruma (Ruby's syntax), ours are PCRE2's with Unicode properties. What means
// the same in both goes over as it is; $, ^, \uHHHH and characters beyond ASCII are rewritten; what differs and has no short equal (\h, \w, \b,
// set operations in classes, repeats of repeats) is refused. Throws apr::Error with where in front, and the place.
std::string pcre_of_oniguruma(std::string_view expression, const std::string& where);

// Matches text and nothing else.
std::string pcre_literal(std::string_view text);

}  // namespace apr
