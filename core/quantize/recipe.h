// Recipes: which format each tensor of a model gets, as data. A recipe is a TOML file that people read, copy
// and change:
//
//   description = "..."
//   file_type = 15                   # optional; general.file_type of the result, as llama.cpp numbers
//   mixtures type = "q4_k"                    # of matrices that no rule names include = "common.toml" #
//   optional; of the recipes' folder: its rules come first vectors = "f32"                  # of tensors with
//   one dimension: norms and biases
//
//   [[rule]]                         # the first rule that matches a matrix decides
//   match = ["attn_v", "blk.*.ffn_down.weight"]      # shell patterns over the tensor's name or its role
//   layers = ["first 1/8", "last 1/8", "every 3 after 1/8", "5", "0-3"]      # optional: any of these
//   min_gqa = 4                      # optional: query heads for each KV head
//   n_layers = 80                    # optional: of the model
//   n_experts = 8                    # optional: of the model
//   importance = true                # optional: with, or without, --importance
//   type = "q6_k"                    # a format, or "keep": the bytes as they are
//
//   [fallback]                       # where K is no whole number of blocks: followed until one fits
//   q4_k = "q5_0"
//   "*" = "f16"                      # for all formats without an entry
//
// A role is a tensor's name without "blk.N." and ".weight": "attn_v", "ffn_down", "token_embd". The embedding
// of a model whose head is tied to it has the role "output".
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace apr {

inline constexpr std::string_view kKeepType = "keep";

// What a recipe may ask of a model.
struct ModelFacts {
  uint32_t n_layers = 0;
  uint32_t n_experts = 0;  // 0: no mixture of experts
  uint32_t gqa = 1;        // query heads for each KV head
  bool tied = false;       // no tensor "output.weight"
  bool importance = false;
};

struct TensorRole {
  std::string role;
  std::optional<uint32_t> layer;
};
TensorRole role_of(std::string_view tensor_name, const ModelFacts& facts);

// One term of a rule's `layers`.
struct LayerTerm {
  enum class Kind {
    First,  // layer < floor(n * part)
    Last,   // layer >= floor(n * (1 - part))
    Every,  // from floor(n * part) on, the last one of every `step`
    Range,  // from..to
  };
  Kind kind;
  uint32_t numerator = 0, denominator = 0;  // part of the layers; denominator 0: numerator layers
  uint32_t step = 0;
  uint32_t from = 0, to = 0;

  bool holds(uint32_t layer, uint32_t n_layers) const;
};

struct Rule {
  std::vector<std::string> match;  // empty: every matrix
  std::vector<LayerTerm> layers;   // empty: every layer, and tensors of no layer
  std::optional<uint32_t> min_gqa, n_layers, n_experts;
  std::optional<bool> importance;
  std::string type;
  std::string origin;  // "q4_k_m.toml:14", for reports and errors

  bool matches(std::string_view tensor_name, const TensorRole& role, const ModelFacts& facts) const;
};

struct Recipe {
  std::string name;  // "q4_k_m", or the format's for a plain type
  std::string description;
  std::optional<uint32_t> file_type;
  std::string type;     // a format's name
  std::string vectors;  // a format's name
  std::vector<Rule> rules;
  std::vector<std::pair<std::string, std::string>> fallback;  // earlier entries win
  std::string text;                                           // what was read, for the record in the result

  // The format to try when `format` does not fit; nullptr when none is declared.
  const std::string* fallback_of(std::string_view format) const;
};

// The recipes that ship with the program: `folder` has NAME.toml and common.toml.
class Recipes {
 public:
  explicit Recipes(std::filesystem::path folder) : folder_(std::move(folder)) {}

  // Names, sorted, without what others include.
  std::vector<std::string> names() const;
  // type: a recipe's name in either case; a path that ends in .toml; else a format's name, which all matrices
  // get. pure: of a recipe only its type, not its mixture. Throws with file and line for a file that is
  // wrong.
  Recipe find(std::string_view type, bool pure) const;
  // Puts the rules and fallbacks of a person's file before the recipe's.
  static void add_rules(Recipe& recipe, const std::filesystem::path& file);

 private:
  std::filesystem::path folder_;
};

}  // namespace apr
