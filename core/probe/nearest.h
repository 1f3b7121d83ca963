// The known name that a mistyped one most likely meant.
#pragma once

#include <optional>
#include <span>
#include <string_view>

namespace apr {

// Fewest insertions, deletions, replacements and swaps of neighbours that turn a into b (optimal string
// alignment).
size_t edit_distance(std::string_view a, std::string_view b);

// The candidate with the smallest distance, the first among equals; nullopt when even that differs in more
// than a third of the wanted name's characters, since such a guess would mislead.
std::optional<std::string_view> nearest(std::string_view wanted,
                                        std::span<const std::string_view> candidates);

}  // namespace apr
