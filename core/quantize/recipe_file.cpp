#include "core/quantize/recipe_file.h"

#include <toml++/toml.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <span>
#include <sstream>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/plugin/manifest.h"

namespace apr {

namespace {

constexpr uintmax_t kMaxRecipeBytes = 1 << 20;
constexpr uint32_t kMaxCount = 65536;  // of layers, experts, heads

class Reader {
 public:
  explicit Reader(const std::filesystem::path& path) : path_(path) {}

  RecipeFile read();

 private:
  [[noreturn]] void fail(const toml::source_region& where, const std::string& what) const {
    throw Error("{}:{}: {}", path_.native(), where.begin.line, what);
  }
  void refuse_unknown_keys(const toml::table& table, std::string_view what,
                           std::span<const std::string_view> known) const;
  std::string string(const toml::table& table, std::string_view key) const;  // "" when absent
  std::optional<uint32_t> count(const toml::table& table, std::string_view key) const;
  std::vector<std::string> strings(const toml::table& table,
                                   std::string_view key) const;  // one string or a list
  std::string format(const toml::table& table, std::string_view key, bool or_keep) const;  // "" when absent
  Rule rule(const toml::table& table) const;

  std::filesystem::path path_;
};

void Reader::refuse_unknown_keys(const toml::table& table, std::string_view what,
                                 std::span<const std::string_view> known) const {
  for (const auto& [key, node] : table) {
    if (std::find(known.begin(), known.end(), key.str()) != known.end()) continue;
    fail(key.source(), fmt::format("unknown key `{}`; {} has {}", printable(key.str()), what, joined(known)));
  }
}

std::string Reader::string(const toml::table& table, std::string_view key) const {
  const toml::node* node = table.get(key);
  if (!node) return {};
  const auto* value = node->as_string();
  if (!value || value->get().empty())
    fail(node->source(), fmt::format("`{}` must be a string, like {} = \"...\"", key, key));
  return value->get();
}

std::optional<uint32_t> Reader::count(const toml::table& table, std::string_view key) const {
  const toml::node* node = table.get(key);
  if (!node) return std::nullopt;
  const auto* value = node->as_integer();
  if (!value || value->get() < 0 || value->get() > kMaxCount)
    fail(node->source(), fmt::format("`{}` must be a whole number from 0 to {}", key, kMaxCount));
  return static_cast<uint32_t>(value->get());
}

std::vector<std::string> Reader::strings(const toml::table& table, std::string_view key) const {
  const toml::node* node = table.get(key);
  if (!node) return {};
  std::vector<std::string> result;
  const auto add = [&](const toml::node& item) {
    const auto* value = item.as_string();
    if (!value || value->get().empty())
      fail(item.source(), fmt::format("`{}` must be a string or a list of strings", key));
    result.push_back(value->get());
  };
  if (const toml::array* array = node->as_array()) {
    if (array->empty())
      fail(node->source(), fmt::format("`{}` is empty, so the rule could never match", key));
    for (const toml::node& item : *array) add(item);
  } else {
    add(*node);
  }
  return result;
}

std::string Reader::format(const toml::table& table, std::string_view key, bool or_keep) const {
  std::string text = string(table, key);
  if (!text.empty() && !is_plugin_word(text))
    fail(table.get(key)->source(),
         fmt::format("`{}`: \"{}\" is no format's name{}", key, printable(text),
                     or_keep ? ", like \"q4_k\" or \"vendor.name\", nor \"keep\"" : ""));
  if (text == kKeepType && !or_keep)
    fail(table.get(key)->source(), fmt::format("`{}` must be a format's name", key));
  return text;
}

Rule Reader::rule(const toml::table& table) const {
  constexpr std::string_view kKeys[] = {"match",     "layers",     "min_gqa", "n_layers",
                                        "n_experts", "importance", "type"};
  refuse_unknown_keys(table, "a rule", kKeys);
  Rule rule;
  rule.origin = fmt::format("{}:{}", path_.filename().native(), table.source().begin.line);
  rule.match = strings(table, "match");
  for (const std::string& text : strings(table, "layers")) {
    const auto term = parse_layer_term(text);
    if (!term)
      fail(table.get("layers")->source(), fmt::format("`layers`: \"{}\" is none of \"first 1/8\", \"first "
                                                      "4\", \"last 1/8\", \"last 4\", \"every 3 after 1/8\", "
                                                      "\"5\", \"0-3\"",
                                                      printable(text)));
    rule.layers.push_back(*term);
  }
  rule.min_gqa = count(table, "min_gqa");
  rule.n_layers = count(table, "n_layers");
  rule.n_experts = count(table, "n_experts");
  if (const toml::node* node = table.get("importance")) {
    if (!node->is_boolean()) fail(node->source(), "`importance` must be true or false");
    rule.importance = node->as_boolean()->get();
  }
  rule.type = format(table, "type", true);
  if (rule.type.empty()) fail(table.source(), "`type` is missing: a rule says which format a tensor gets");
  return rule;
}

RecipeFile Reader::read() {
  std::error_code failure;
  const uintmax_t bytes = std::filesystem::file_size(path_, failure);
  if (failure) throw Error("{}: cannot be read: {}", path_.native(), failure.message());
  if (bytes > kMaxRecipeBytes)
    throw Error("{}: {} is too large for a recipe", path_.native(), human_bytes(bytes));
  std::ifstream in(path_, std::ios::binary);
  std::string text(std::istreambuf_iterator<char>(in), {});
  toml::table table;
  try {
    table = toml::parse(text, path_.native());
  } catch (const toml::parse_error& error) {
    throw Error("{}:{}: {}", path_.native(), error.source().begin.line, error.description());
  }
  constexpr std::string_view kKeys[] = {"description", "file_type", "type",    "vectors",
                                        "include",     "rule",      "fallback"};
  refuse_unknown_keys(table, "a recipe", kKeys);
  RecipeFile file;
  file.recipe.description = string(table, "description");
  file.recipe.file_type = count(table, "file_type");
  file.recipe.type = format(table, "type", false);
  file.recipe.vectors = format(table, "vectors", false);
  if (std::string include = string(table, "include"); !include.empty()) {
    if (std::filesystem::path(include).has_parent_path())
      fail(table.get("include")->source(), "`include` names a file of the recipes' folder, without a path");
    file.include = std::move(include);
  }
  if (const toml::node* node = table.get("rule")) {
    const toml::array* rules = node->as_array();
    if (!rules || !rules->is_homogeneous(toml::node_type::table))
      fail(node->source(), "rules are written as [[rule]]");
    for (const toml::node& each : *rules) file.recipe.rules.push_back(rule(*each.as_table()));
  }
  if (const toml::node* node = table.get("fallback")) {
    const toml::table* entries = node->as_table();
    if (!entries) fail(node->source(), "fallbacks are written as [fallback]");
    for (const auto& [key, value] : *entries) {
      if (key.str() != "*" && !is_plugin_word(key.str()))
        fail(key.source(), fmt::format("\"{}\" is no format's name", printable(key.str())));
      file.recipe.fallback.emplace_back(key.str(), format(*entries, key.str(), false));
    }
  }
  file.recipe.text = std::move(text);
  return file;
}

// Consumes a number from the front.
std::optional<uint32_t> take_number(std::string_view& text) {
  uint32_t value = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failure != std::errc() || value > kMaxCount) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return value;
}

bool take(std::string_view& text, std::string_view word) {
  if (text.substr(0, word.size()) != word) return false;
  text.remove_prefix(word.size());
  return true;
}

// "4" or "1/8", to the end of the text.
bool take_part(std::string_view text, LayerTerm& term) {
  const auto numerator = take_number(text);
  if (!numerator) return false;
  term.numerator = *numerator;
  if (text.empty()) return true;
  if (!take(text, "/")) return false;
  const auto denominator = take_number(text);
  if (!denominator || *denominator == 0 || *denominator < *numerator || !text.empty()) return false;
  term.denominator = *denominator;
  return true;
}

}  // namespace

std::optional<LayerTerm> parse_layer_term(std::string_view text) {
  LayerTerm term{};
  if (take(text, "first ")) {
    term.kind = LayerTerm::Kind::First;
    return take_part(text, term) ? std::optional(term) : std::nullopt;
  }
  if (take(text, "last ")) {
    term.kind = LayerTerm::Kind::Last;
    return take_part(text, term) ? std::optional(term) : std::nullopt;
  }
  if (take(text, "every ")) {
    term.kind = LayerTerm::Kind::Every;
    const auto step = take_number(text);
    if (!step || *step == 0) return std::nullopt;
    term.step = *step;
    if (text.empty()) return term;
    return take(text, " after ") && take_part(text, term) ? std::optional(term) : std::nullopt;
  }
  term.kind = LayerTerm::Kind::Range;
  const auto from = take_number(text);
  if (!from) return std::nullopt;
  term.from = term.to = *from;
  if (text.empty()) return term;
  const auto to = take(text, "-") ? take_number(text) : std::nullopt;
  if (!to || *to < *from || !text.empty()) return std::nullopt;
  term.to = *to;
  return term;
}

RecipeFile read_recipe_file(const std::filesystem::path& path) { return Reader(path).read(); }

}  // namespace apr
