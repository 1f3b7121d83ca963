#include "core/quantize/recipe.h"

#include <algorithm>
#include <charconv>

#include "apr/rules.hpp"
#include "core/base/error.h"
#include "core/base/format.h"
#include "core/quantize/recipe_file.h"

namespace apr {

namespace {

constexpr std::string_view kBlock = "blk.";
constexpr std::string_view kWeight = ".weight";

bool fits(const std::string& pattern, std::string_view name, const std::string& role) {
  return weight_name_matches(pattern.c_str(), std::string(name).c_str(), role.c_str());
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

}  // namespace

TensorRole role_of(std::string_view tensor_name, const ModelFacts& facts) {
  TensorRole result;
  std::string_view part = tensor_name;
  if (part.substr(0, kBlock.size()) == kBlock) {
    uint32_t layer = 0;
    const char* const begin = part.data() + kBlock.size();
    const char* const end = part.data() + part.size();
    const auto [at, failure] = std::from_chars(begin, end, layer);
    if (failure == std::errc() && at != end && *at == '.') {
      result.layer = layer;
      part.remove_prefix(static_cast<size_t>(at + 1 - part.data()));
    }
  }
  if (part.size() > kWeight.size() && part.substr(part.size() - kWeight.size()) == kWeight)
    part.remove_suffix(kWeight.size());
  result.role = part;
  if (facts.tied && result.role == "token_embd") result.role = "output";
  return result;
}

bool LayerTerm::holds(uint32_t layer, uint32_t n_layers) const {
  const auto share = [&](uint64_t n, uint64_t d) { return d == 0 ? n : n_layers * n / d; };
  switch (kind) {
    case Kind::First:
      return layer < share(numerator, denominator);
    case Kind::Last:
      return denominator == 0 ? layer + uint64_t{numerator} >= n_layers
                              : layer >= share(denominator - numerator, denominator);
    case Kind::Every: {
      const uint64_t begin = share(numerator, denominator);
      return layer >= begin && (layer - begin) % step == step - 1;
    }
    case Kind::Range:
      return layer >= from && layer <= to;
  }
  throw Error("internal error: {} is no kind of layer term", static_cast<int>(kind));
}

bool Rule::matches(std::string_view tensor_name, const TensorRole& role, const ModelFacts& facts) const {
  if (!match.empty() && std::none_of(match.begin(), match.end(),
                                     [&](const auto& each) { return fits(each, tensor_name, role.role); }))
    return false;
  if (!layers.empty()) {
    if (!role.layer) return false;
    const auto holds = [&](const LayerTerm& term) { return term.holds(*role.layer, facts.n_layers); };
    if (std::none_of(layers.begin(), layers.end(), holds)) return false;
  }
  if (min_gqa && facts.gqa < *min_gqa) return false;
  if (n_layers && facts.n_layers != *n_layers) return false;
  if (n_experts && facts.n_experts != *n_experts) return false;
  return !importance || facts.importance == *importance;
}

const std::string* Recipe::fallback_of(std::string_view format) const {
  for (const auto& [from, to] : fallback)
    if (from == format) return &to;
  for (const auto& [from, to] : fallback)
    if (from == "*" && to != format) return &to;
  return nullptr;
}

std::vector<std::string> Recipes::names() const {
  std::vector<std::string> found;
  std::error_code failure;
  for (const auto& entry : std::filesystem::directory_iterator(folder_, failure)) {
    const std::filesystem::path& path = entry.path();
    if (path.extension() == ".toml" && path.filename() != kCommonRecipe)
      found.push_back(path.stem().string());
  }
  if (failure || found.empty())
    throw Error("{}: there are no recipes here; install or bundle apr as one folder", folder_.string());
  std::sort(found.begin(), found.end());
  return found;
}

Recipe Recipes::find(std::string_view type, bool pure) const {
  const std::filesystem::path given(type);
  RecipeFile own, common;
  if (given.extension() == ".toml") {
    own = read_recipe_file(given);
    own.recipe.name = given.stem().string();
  } else {
    const std::string name = lower(type);
    const std::vector<std::string> known = names();
    if (std::binary_search(known.begin(), known.end(), name)) {
      own = read_recipe_file(folder_ / (name + ".toml"));
    } else {
      own.recipe.type = name;
      own.include = std::string(kCommonRecipe);
      own.recipe.text = fmt::format("include = \"{}\"\ntype = \"{}\"\n", kCommonRecipe, name);
    }
    own.recipe.name = name;
  }
  if (own.recipe.type.empty())
    throw Error("{}: `type` is missing: a recipe says what matrices get that no rule names", given.string());
  Recipe recipe = std::move(own.recipe);
  if (pure) {
    recipe.rules.clear();
    recipe.text = fmt::format("# --pure: without the rules of\n{}", recipe.text);
  }
  if (own.include) {
    common = read_recipe_file(folder_ / *own.include);
    if (common.include)
      throw Error("{}: an included file includes nothing itself", (folder_ / *own.include).string());
    recipe.rules.insert(recipe.rules.begin(), common.recipe.rules.begin(), common.recipe.rules.end());
    recipe.fallback.insert(recipe.fallback.end(), common.recipe.fallback.begin(),
                           common.recipe.fallback.end());
    if (recipe.vectors.empty()) recipe.vectors = common.recipe.vectors;
    recipe.text = fmt::format("{}\n# {}\n{}", recipe.text, *own.include, common.recipe.text);
  }
  if (recipe.vectors.empty())
    throw Error("{}: `vectors` is missing: a recipe says what norms and biases get; include = \"{}\" would",
                given.string(), kCommonRecipe);
  return recipe;
}

void Recipes::add_rules(Recipe& recipe, const std::filesystem::path& file) {
  RecipeFile given = read_recipe_file(file);
  if (given.include || !given.recipe.type.empty() || given.recipe.file_type || !given.recipe.vectors.empty())
    throw Error(
        "{}: a file of rules has [[rule]] and [fallback] only; a whole recipe is given with --type {}",
        file.string(), file.string());
  recipe.rules.insert(recipe.rules.begin(), given.recipe.rules.begin(), given.recipe.rules.end());
  recipe.fallback.insert(recipe.fallback.begin(), given.recipe.fallback.begin(), given.recipe.fallback.end());
  recipe.text = given.recipe.text + "\n" + recipe.text;
}

}  // namespace apr
