// What stands for a space in SentencePiece's vocabularies.
#pragma once

#include <string_view>

namespace apr {

inline constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // ▁, U+2581

// Whether a token goes on over a space. In a vocabulary without such a one each word can be encoded by itself.
bool space_after_another_character(std::string_view token);

}  // namespace apr
