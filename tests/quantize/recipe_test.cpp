// Recipes: what a rule matches, what a file may say, and where its errors point.
#include <doctest/doctest.h>

#include "core/quantize/recipe.h"
#include "core/quantize/recipe_file.h"
#include "tests/base/expect_error.h"
#include "tests/base/temp_dir.h"

namespace {

using namespace apr;
using apr_test::error_of;
using apr_test::TempDir;

std::vector<uint32_t> layers_of(std::string_view text, uint32_t n) {
  const auto term = parse_layer_term(text);
  REQUIRE(term.has_value());
  std::vector<uint32_t> result;
  for (uint32_t i = 0; i < n; ++i)
    if (term->holds(i, n)) result.push_back(i);
  return result;
}

}  // namespace

TEST_CASE("a role is a tensor's name without its layer, and a tied embedding is the head") {
  ModelFacts facts;
  CHECK(role_of("blk.12.attn_v.weight", facts).role == "attn_v");
  CHECK(role_of("blk.12.attn_v.weight", facts).layer == 12u);
  CHECK(role_of("token_embd.weight", facts).role == "token_embd");
  CHECK_FALSE(role_of("token_embd.weight", facts).layer.has_value());
  CHECK(role_of("blk.x.attn_v.weight", facts).role == "blk.x.attn_v");
  CHECK(role_of("blk.0.attn_q.bias", facts).role == "attn_q.bias");
  facts.tied = true;
  CHECK(role_of("token_embd.weight", facts).role == "output");
}

TEST_CASE("layer terms") {
  using Layers = std::vector<uint32_t>;
  CHECK(layers_of("first 1/8", 32) == Layers{0, 1, 2, 3});
  CHECK(layers_of("first 1/8", 7).empty());
  CHECK(layers_of("first 2", 8) == Layers{0, 1});
  CHECK(layers_of("last 1/8", 28) == Layers{24, 25, 26, 27});  // from floor(7 * 28 / 8)
  CHECK(layers_of("last 2", 8) == Layers{6, 7});
  CHECK(layers_of("last 9", 4) == Layers{0, 1, 2, 3});
  CHECK(layers_of("every 3 after 1/8", 16) == Layers{4, 7, 10, 13});
  CHECK(layers_of("every 2", 5) == Layers{1, 3});
  CHECK(layers_of("5", 8) == Layers{5});
  CHECK(layers_of("2-4", 8) == Layers{2, 3, 4});
  for (const char* bad : {"", "first", "first ", "first 1/0", "first 9/8", "last 1/", "every 0",
                          "every 3 after", "4-2", "1/8", "5x"}) {
    CAPTURE(bad);
    CHECK_FALSE(parse_layer_term(bad).has_value());
  }
}

TEST_CASE("a recipe's errors name file and line") {
  const TempDir dir;
  const auto error = [&](std::string_view text) {
    const std::string path = dir.write("r.toml", text);
    return error_of([&] { return read_recipe_file(path).recipe.type; });
  };
  CHECK_HAS(error("type = \"q4_k\"\ntyp = 1\n"), "r.toml:2: unknown key `typ`");
  CHECK_HAS(error("type = 4\n"), "r.toml:1: `type` must be a string");
  CHECK_HAS(error("type = \"keep\"\n"), "must be a format's name");
  CHECK_HAS(error("type = \"q4_k\n"), "r.toml:1");
  CHECK_HAS(error("\n[[rule]]\nmatch = \"x\"\n"), "`type` is missing");
  CHECK_HAS(error("[[rule]]\ntype = \"q4_k\"\nlayers = \"some\"\n"),
            "r.toml:3: `layers`: \"some\" is none of");
  CHECK_HAS(error("[[rule]]\ntype = \"q4_k\"\nmatch = []\n"), "could never match");
  CHECK_HAS(error("[[rule]]\ntype = \"q4_k\"\nimportance = 1\n"), "must be true or false");
  CHECK_HAS(error("[fallback]\nq4_k = 5\n"), "r.toml:2");
  CHECK_HAS(error("include = \"../x.toml\"\n"), "without a path");
  CHECK_HAS(error_of([&] { return read_recipe_file(dir / "none.toml").recipe.type; }), "cannot be read");
}

TEST_CASE("rules: the first that matches, a person's before the recipe's, fallbacks followed") {
  const TempDir dir;
  dir.write("common.toml",
            "vectors = \"f32\"\n[[rule]]\nmatch = \"router\"\ntype = \"keep\"\n[fallback]\na = \"b\"\n\"*\" "
            "= \"c\"\n");
  dir.write("mix.toml",
            "include = \"common.toml\"\ntype = \"a\"\n[[rule]]\nmatch = \"attn_?\"\nlayers = \"first "
            "1/2\"\ntype = \"d\"\n");
  const Recipes recipes(dir.path());
  CHECK(recipes.names() == std::vector<std::string>{"mix"});
  Recipe recipe = recipes.find("MIX", false);
  REQUIRE(recipe.rules.size() == 2);
  CHECK(recipe.rules[0].type == "keep");
  CHECK(recipe.vectors == "f32");
  CHECK(recipe.text.find("router") != std::string::npos);
  ModelFacts facts;
  facts.n_layers = 4;
  const auto type_of = [&](const char* name) -> std::string {
    for (const Rule& rule : recipe.rules)
      if (rule.matches(name, role_of(name, facts), facts)) return rule.type;
    return recipe.type;
  };
  CHECK(type_of("blk.1.attn_v.weight") == "d");
  CHECK(type_of("blk.2.attn_v.weight") == "a");
  CHECK(type_of("blk.2.router.weight") == "keep");
  Recipes::add_rules(recipe, dir.write("own.toml", "[[rule]]\nmatch = \"blk.1.*\"\ntype = \"e\"\n"));
  CHECK(type_of("blk.1.attn_v.weight") == "e");
  CHECK(*recipe.fallback_of("a") == "b");
  CHECK(*recipe.fallback_of("b") == "c");
  CHECK(recipe.fallback_of("c") == nullptr);
  CHECK(recipes.find("mix", true).rules.size() == 1);
  CHECK(recipes.find("vendor.x", false).type == "vendor.x");
  CHECK_HAS(error_of([&] {
              Recipes::add_rules(recipe, dir / "mix.toml");
              return 0;
            }),
            "a file of rules has");
}
