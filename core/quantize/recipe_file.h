// One recipe's TOML, read by itself: what it includes is joined by recipe.cpp. Private to core/quantize.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "core/quantize/recipe.h"

namespace apr {

inline constexpr std::string_view kCommonRecipe = "common.toml";

struct RecipeFile {
  Recipe recipe;  // type and vectors may be empty
  std::optional<std::string> include;
};

// Throws apr::Error with file and line for text that is no TOML, an unknown key, or a bad value.
RecipeFile read_recipe_file(const std::filesystem::path& path);

// "first 1/8", "every 3 after 1/8", "5": nullopt for anything else.
std::optional<LayerTerm> parse_layer_term(std::string_view text);

}  // namespace apr
