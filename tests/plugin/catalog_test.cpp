#include "core/plugin/catalog.h"

#include <doctest/doctest.h>

#include "core/base/log.h"
#include "tests/plugin/scratch.h"

using namespace apr;
using namespace apr::test;

namespace {

SearchPath required(const fs::path& path) { return {path, "--plugin-path", true}; }

const apr_quant_format& sample_format(Catalog& catalog) {
  return catalog.format(WeightQuantType::Extension, "sample.f32", "blk.0.attn_q.weight");
}

// The error of using a library of one variant, which must name the library's file.
std::string use_error(const std::string& variant, const ManifestText& manifest = {}) {
  const Scratch scratch;
  install(scratch, "sample", variant, manifest);
  Catalog catalog({required(scratch.path())});
  REQUIRE(catalog.plugins().size() == 1);
  const std::string message = error_of(
      [&] { catalog.format(WeightQuantType::Extension, catalog.plugins()[0].manifest.provides[0], "t"); });
  CHECK(has(message, (scratch.path() / "sample").native()));
  return message;
}

std::string refusal(const fs::path& path) {
  Catalog catalog({required(path)});
  CHECK(catalog.plugins().empty());
  REQUIRE(catalog.refused().size() == 1);
  return catalog.refused()[0].reason;
}

}  // namespace

TEST_CASE("scanning opens nothing; asking opens one library") {
  const Scratch scratch;
  install(scratch, "sample", "good");
  unsetenv("APR_TEST_SAMPLE_OPENED");
  Catalog catalog({required(scratch.path())});
  REQUIRE(catalog.plugins().size() == 1);
  CHECK(catalog.plugins()[0].table == nullptr);
  CHECK(getenv("APR_TEST_SAMPLE_OPENED") == nullptr);
  const apr_quant_format& format = sample_format(catalog);
  CHECK(getenv("APR_TEST_SAMPLE_OPENED") != nullptr);
  CHECK(std::string(format.name) == "sample.f32");
  CHECK(catalog.plugins()[0].table != nullptr);
  CHECK(&sample_format(catalog) == &format);
  CHECK(&catalog.format("sample.f32") == &format);
  const float in[2] = {1.5f, -2};
  float out[2] = {};
  format.dequantize(in, 1, 2, out);
  CHECK(out[1] == -2);
}

TEST_CASE("a folder is a plugin, or holds plugins; other folders do not matter") {
  const Scratch scratch;
  install(scratch, "a/sample", "good");
  scratch.folder("a/unrelated/deep");
  scratch.file("a/README", "text");
  CHECK(Catalog({required(scratch.path() / "a")}).plugins().size() == 1);
  CHECK(Catalog({required(scratch.path() / "a/sample")}).plugins().size() == 1);
  CHECK(Catalog({required(scratch.path())}).plugins().empty());  // not deeper than one level
}

TEST_CASE("a broken library is an error that names it, before its code is used") {
  set_log_level(LogLevel::Error);
  CHECK(has(use_error("wrong_major"),
            "was compiled against ABI 2.0, this program has 1.0; rebuild the plugin"));
  CHECK(has(use_error("newer_minor"),
            "was compiled against ABI 1.1, newer than this program's 1.0; update apr"));
  CHECK(has(use_error("no_symbol"), "exports no `apr_plugin_entry`"));
  CHECK(has(use_error("function_entry"), "`apr_plugin_entry` is not data"));
  CHECK(has(use_error("small_entry"), "`apr_plugin_entry` has 16 bytes, fewer than the"));
  CHECK(has(use_error("short_entry"), "apr_plugin_entry: struct_size is"));
  CHECK(has(use_error("tiny_entry"), "struct_size 8, too small to hold a version"));
  CHECK(has(use_error("short_format"), "format 'sample.f32': struct_size is"));
  CHECK(has(use_error("null_function"), "format 'sample.f32': `dequantize` is null"));
  CHECK(has(use_error("undefined_symbol"), "no_library_has_this"));
  ManifestText q4k;
  q4k.provides = R"(["q4_k"])";
  const Scratch scratch;
  install(scratch, "sample", "geometry", q4k);
  Catalog catalog({required(scratch.path())});
  const std::string geometry = error_of([&] { catalog.format(WeightQuantType::Q4_K, "q4_k", "t"); });
  CHECK(has(
      geometry,
      "libsample.so: format 'q4_k': a block of 256 elements in 140 bytes, but this well-known type has 256 "
      "elements in 144 bytes"));
}

TEST_CASE("a manifest that lies is an error that names both files") {
  ManifestText m;
  SUBCASE("provides more") {
    m.provides = R"(["sample.f32", "sample.f64"])";
    const std::string message = use_error("good", m);
    CHECK(has(message, "says that it provides 'sample.f64', but the library has only sample.f32"));
    CHECK(has(message, "libsample.so"));
    CHECK(has(message, "plugin.toml"));
  }
  SUBCASE("provides another") {
    m.provides = R"(["sample.f64"])";
    CHECK(has(use_error("good", m), "'sample.f64', but the library has only sample.f32"));
  }
  SUBCASE("name") {
    m.name = "other";
    CHECK(has(use_error("good", m), "calls itself 'sample'"));
  }
  SUBCASE("version") {
    m.version = "9";
    CHECK(has(use_error("good", m), "the library is version '1.2.3'"));
  }
  SUBCASE("abi, other major: the library is not even opened") {
    m.abi = "2.0";
    unsetenv("APR_TEST_SAMPLE_OPENED");
    CHECK(has(use_error("good", m), "ABI 2.0, this program has 1.0"));
    CHECK(getenv("APR_TEST_SAMPLE_OPENED") == nullptr);
  }
  SUBCASE("kind") {
    m.kind = "backend";
    const Scratch scratch;
    install(scratch, "sample", "good", m);
    Catalog catalog({required(scratch.path())});
    CHECK(has(error_of([&] { catalog.backend("sample.f32"); }), "but the library has nothing of that kind"));
  }
  SUBCASE("file that is not there") {
    set_log_level(LogLevel::Error);
    m.file = "libnothing.so";
    const Scratch scratch;
    install(scratch, "sample", "good", m);
    const std::string reason = refusal(scratch.path());
    CHECK(has(reason, "libnothing.so: the library that"));
    CHECK(has(reason, "plugin.toml names is not there"));
  }
  SUBCASE("file that is no library") {
    const Scratch scratch;
    install(scratch, "sample", "good");
    scratch.file("sample/libsample.so", "text");
    Catalog catalog({required(scratch.path())});
    CHECK(has(error_of([&] { sample_format(catalog); }), "libsample.so: cannot be opened"));
  }
}

TEST_CASE("an unreadable manifest refuses one plugin, not the others") {
  set_log_level(LogLevel::Error);
  const Scratch scratch;
  install(scratch, "a", "good");
  install(scratch, "b", "good", {.kind = "quants"});
  Catalog catalog({required(scratch.path())});
  CHECK(catalog.plugins().size() == 1);
  REQUIRE(catalog.refused().size() == 1);
  CHECK(has(catalog.refused()[0].reason, "b/plugin.toml:2: kind \"quants\" is unknown"));
  CHECK(std::string(sample_format(catalog).name) == "sample.f32");
}

TEST_CASE("two plugins for one type") {
  const Scratch scratch;
  install(scratch, "one/sample", "good");
  SUBCASE("are an error at use that names both") {
    install(scratch, "two/sample", "good");
    Catalog catalog({required(scratch.path() / "one"), {scratch.path() / "two", "APR_PLUGIN_PATH", true}});
    CHECK(catalog.plugins().size() == 2);
    const std::string message = error_of([&] { sample_format(catalog); });
    CHECK(has(message, "tensor 'blk.0.attn_q.weight' has format 'sample.f32', and 2 plugins provide it"));
    CHECK(has(message, (scratch.path() / "one/sample/libsample.so").native() + " (--plugin-path)"));
    CHECK(has(message, (scratch.path() / "two/sample/libsample.so").native() + " (APR_PLUGIN_PATH)"));
  }
  SUBCASE("are one when they are the same file") {
    fs::create_directory_symlink(scratch.path() / "one", scratch.path() / "link");
    Catalog catalog({required(scratch.path() / "one"), required(scratch.path() / "link"),
                     required(scratch.path() / "one")});
    CHECK(catalog.plugins().size() == 1);
    CHECK(error_of([&] { sample_format(catalog); }) == "");
  }
}

TEST_CASE("what others can write is refused with its name") {
  set_log_level(LogLevel::Error);
  const Scratch scratch;
  const fs::path plugin = install(scratch, "plugins/sample", "good");
  fs::path bad;
  std::string by = "anybody";
  mode_t mode = 0;
  SUBCASE("search folder, 0777") { bad = plugin.parent_path(), mode = 0777; }
  SUBCASE("plugin folder, 0777") { bad = plugin, mode = 0777; }
  SUBCASE("plugin folder, sticky") { bad = plugin, mode = 01777; }
  SUBCASE("plugin folder, group") { bad = plugin, mode = 0775, by = "its group"; }
  SUBCASE("manifest") { bad = plugin / "plugin.toml", mode = 0666; }
  SUBCASE("library, 0777") { bad = plugin / "libsample.so", mode = 0777; }
  SUBCASE("library, group") { bad = plugin / "libsample.so", mode = 0664, by = "its group"; }
  chmod(bad.c_str(), mode);
  const std::string reason = refusal(plugin.parent_path());
  CHECK(has(reason, bad.native() + " can be written by " + by));
  CHECK(has(reason, "chmod go-w " + bad.native()));
  // Without it the type has no plugin; the error says why.
  Catalog catalog({required(plugin.parent_path())});
  CHECK(has(error_of([&] { sample_format(catalog); }), "refused: " + bad.native() + " can be written by"));
}

TEST_CASE("what belongs to a third person is refused") {
  if (geteuid() != 0) {
    MESSAGE("skipped: only root can give files away");
    return;
  }
  set_log_level(LogLevel::Error);
  const Scratch scratch;
  const fs::path plugin = install(scratch, "sample", "good");
  REQUIRE(chown((plugin / "libsample.so").c_str(), 12345, 12345) == 0);
  CHECK(has(refusal(scratch.path()), "libsample.so belongs to user id 12345, who is neither root nor you"));
}

TEST_CASE("a library that became writable after the scan is refused at use") {
  const Scratch scratch;
  const fs::path plugin = install(scratch, "sample", "good");
  Catalog catalog({required(scratch.path())});
  chmod((plugin / "libsample.so").c_str(), 0777);
  CHECK(has(error_of([&] { sample_format(catalog); }), "plugin refused: "));
}

TEST_CASE("a missing plugin's error names type, tensor, paths and what would help") {
  const Scratch scratch;
  install(scratch, "sample", "good");
  Catalog catalog({required(scratch.path()), {scratch.path() / "nowhere", "user data", false}});
  const std::string message =
      error_of([&] { catalog.format(WeightQuantType::Q4_K, "q4_k", "blk.7.ffn_down.weight"); });
  CHECK(has(message, "tensor 'blk.7.ffn_down.weight' has format 'q4_k', and no plugin provides it"));
  CHECK(has(message, "provides = [\"q4_k\"]"));
  CHECK(has(message, "found are: sample.f32"));
  CHECK(has(message, scratch.path().native() + " (--plugin-path)"));
  CHECK(has(message, (scratch.path() / "nowhere").native() + " (user data; does not exist)"));
  CHECK(
      has(error_of([&] { catalog.backend("cuda"); }), "backend 'cuda' is needed, and no plugin provides it"));
  CHECK(has(error_of([&] { catalog.format("Q4_K"); }), "format 'q4_k' is needed"));
}

TEST_CASE("search paths: order, origins, and never the working directory") {
  const Scratch scratch;
  install(scratch, "plugins/sample", "good");
  install(scratch, "sample", "good");
  const fs::path before = fs::current_path();
  fs::current_path(scratch.path());
  setenv("XDG_DATA_HOME", (scratch.path() / "data").c_str(), 1);
  const std::vector<SearchPath> paths = plugin_search_paths({"given"}, {"/from/environment"});
  const Catalog catalog(plugin_search_paths({}, {}));
  fs::current_path(before);

  REQUIRE(paths.size() == 6);
  CHECK(paths[0].path ==
        scratch.path() / "given");  // the command line's is the person's choice, here and now
  CHECK(paths[0].origin == "--plugin-path");
  CHECK(paths[1].path == "/from/environment");
  CHECK(paths[1].origin == "APR_PLUGIN_PATH");
  CHECK(paths[2].path == scratch.path() / "data/apr/plugins");
  const fs::path program = boost::dll::program_location().parent_path();
  CHECK(paths[3].path == program / "plugins");
  CHECK(paths[4].path == (program / "../plugins").lexically_normal());
  CHECK(paths[5].path == (program / "../lib/apr/plugins").lexically_normal());
  for (const FoundPlugin& plugin : catalog.plugins()) {
    CHECK_FALSE(plugin.manifest.path.native().starts_with(scratch.path().native()));
  }
  CHECK(has(error_of([] { plugin_search_paths({}, {"relative"}); }),
            "APR_PLUGIN_PATH: 'relative' is not an absolute path"));
  unsetenv("XDG_DATA_HOME");
}

TEST_CASE("a named path that does not exist is an error, an implied one is not") {
  const Scratch scratch;
  CHECK(has(error_of([&] { Catalog({required(scratch.path() / "nowhere")}); }), "nowhere is not a folder"));
  const Catalog catalog({{scratch.path() / "nowhere", "user data", false}});
  CHECK_FALSE(catalog.searched()[0].exists);
}
