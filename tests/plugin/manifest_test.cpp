#include <doctest/doctest.h>

#include "core/plugin/manifest.h"
#include "tests/plugin/scratch.h"

using namespace apr;
using namespace apr::test;

namespace {

std::string error_for(const std::string& text) {
  const Scratch scratch;
  const fs::path path = scratch.file("p/plugin.toml", text);
  const std::string message = error_of([&] { read_manifest(path); });
  if (!message.empty()) CHECK(has(message, path.native()));  // always says which file
  return message;
}

std::string error_for(const ManifestText& manifest) { return error_for(manifest.text()); }

}  // namespace

TEST_CASE("a manifest's fields arrive") {
  const Scratch scratch;
  ManifestText text;
  text.provides = R"(["q4_k", "vendor.nf4"])";
  const Manifest manifest = read_manifest(scratch.file("p/plugin.toml", "# a comment\n" + text.text()));
  CHECK(manifest.name == "sample");
  CHECK(manifest.kind == PluginKind::Quant);
  CHECK(manifest.abi_major == 1);
  CHECK(manifest.abi_minor == 0);
  CHECK(manifest.version == "1.2.3");
  CHECK(manifest.provides == std::vector<std::string>{"q4_k", "vendor.nf4"});
  CHECK(manifest.library == scratch.path() / "p/libsample.so");
  CHECK(manifest.provides_name("vendor.nf4"));
  CHECK_FALSE(manifest.provides_name("vendor"));
}

TEST_CASE("a wrong manifest is an error with its line") {
  ManifestText m;
  SUBCASE("no TOML") {
    const std::string message = error_for("name = \"a\"\nkind = = 3\n");
    CHECK(has(message, "plugin.toml:2: "));
  }
  SUBCASE("empty") { CHECK(has(error_for(std::string()), "key `name` is missing")); }
  SUBCASE("binary") {
    CHECK(error_for(std::string("\x7f"
                                "ELF\0\0\1\2",
                                8)) != "");
  }
  SUBCASE("unknown key") {
    m.more = "requires = \"x\"\n";
    CHECK(has(error_for(m), "plugin.toml:7: unknown key `requires`"));
  }
  SUBCASE("missing key") { CHECK(has(error_for("name = \"a\"\n"), "key `kind` is missing")); }
  SUBCASE("kind") {
    m.kind = "quants";
    CHECK(has(error_for(m), "plugin.toml:2: kind \"quants\" is unknown; it is \"quant\" or \"backend\""));
  }
  SUBCASE("abi") {
    for (const char* abi : {"1", "1.", ".0", "1.0.0", "one", "-1.0", "1.99999999999"}) {
      m.abi = abi;
      CHECK(has(error_for(m), "plugin.toml:3: abi"));
    }
  }
  SUBCASE("provides") {
    m.provides = "\"q4_k\"";
    CHECK(has(error_for(m), "plugin.toml:5: `provides` must be a list"));
    m.provides = "[]";
    CHECK(has(error_for(m), "`provides` has 0 names"));
    m.provides = "[1]";
    CHECK(has(error_for(m), "strings only"));
    m.provides = R"(["a.b", "a.b"])";
    CHECK(has(error_for(m), "lists \"a.b\" twice"));
    m.provides = R"(["Q4_K"])";
    CHECK(has(error_for(m), "\"Q4_K\" is no name"));
    m.provides = "[\"" + std::string(64, 'a') + "\"]";
    CHECK(has(error_for(m), "is no name"));
  }
  SUBCASE("type") { CHECK(has(error_for("name = 3\n"), "plugin.toml:1: `name` must be a string")); }
  SUBCASE("a file elsewhere") {
    for (const char* file : {"../libx.so", "/usr/lib/libc.so.6", "a/b.so", ".."}) {
      m.file = file;
      CHECK(has(error_for(m), "must be the name of a file in the manifest's own folder"));
    }
  }
  SUBCASE("too large") { CHECK(has(error_for(std::string(100 << 10, '#')), "too large for a manifest")); }
}

TEST_CASE("names of formats and plugins") {
  for (const char* good : {"q4_k", "vendor.nf4", "backend-cpu", "a", "0", "a.b.c"})
    CHECK(is_plugin_word(good));
  for (const char* bad : {"", ".a", "a.", "a..b", "A", "a b", "a/b", "\xc3\xa4", "a\n"})
    CHECK_FALSE(is_plugin_word(bad));
  CHECK(is_plugin_word(std::string(kMaxName, 'x')));
  CHECK_FALSE(is_plugin_word(std::string(kMaxName + 1, 'x')));
}
