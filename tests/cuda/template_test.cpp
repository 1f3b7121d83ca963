// Headers of templates and what the specialiser makes of them.
#include <doctest/doctest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>

#include "core/base/error.h"
#include "plugins/backend-cuda/jit.h"
#include "plugins/backend-cuda/spec.h"
#include "plugins/backend-cuda/templates.h"
#include "tests/cuda/support/formats.h"

namespace fs = std::filesystem;
using namespace apr;
using namespace apr::cuda;

namespace {

const std::string kGood = R"(/*
name = "demo"
op = "linear"
view = "int"
m = [1, 8]
layouts = ["planar", "row_major"]
arch = 80
features = []
summary = "a demonstration"
[params]
rows = { values = [1, 2, 4], default = 2, meaning = "rows per warp" }
*/
#include "demo.h"
code
)";

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

Registry shipped() { return read_registry(fs::path(test::plugin_folder()) / ".." / "ptx-templates"); }

SegmentSpec segment(const std::string& format, uint32_t n, bool bias = false) {
  const apr_quant_format& f = test::format(format);
  return {format, f.codec, nullptr, n, bias};
}

KernelSpec gemv(const std::string& format, uint32_t n, uint32_t k) {
  return {Op::Linear,
          View::Int,
          1,
          k,
          {segment(format, n)},
          {{"kEpilogue", 0}, {"kNorm", 0, Constant::Type::Bool}, {"kInput", 0}, {"kOutput", 0}}};
}

const Target kTarget = make_target(90, 132, 232448, {80, 90, 100});

}  // namespace

TEST_CASE("a good header") {
  const Template t = parse_template("/x/demo.cu", kGood);
  CHECK(t.name == "demo");
  CHECK(t.op == Op::Linear);
  CHECK(t.view == View::Int);
  CHECK(t.m_min == 1);
  CHECK(t.m_max == 8);
  CHECK(t.layouts == std::vector<std::string>{"planar", "row_major"});
  CHECK(t.params.size() == 1);
  CHECK(t.params[0].preset == 2);
  CHECK_FALSE(t.literal);
}

TEST_CASE("every mistake in a header is named with its file and line") {
  const auto fails = [](const std::string& from, const std::string& to, const std::string& message,
                        const std::string& file = "/x/demo.cu") {
    CAPTURE(message);
    CHECK_THROWS_WITH_AS(parse_template(file, replaced(kGood, from, to)), message.c_str(), Error);
  };
  fails("/*\n", "",
        "/x/demo.cu: a kernel template begins with a comment of TOML between /* and */, and this file has "
        "none");
  fails("/*\n", "int x; /*\n",
        "/x/demo.cu:1: a kernel template begins with its comment of TOML; something stands before it");
  fails("arch = 80", "arch = ]", "/x/demo.cu:7: Error while parsing key-value pair: expected value, saw ']'");
  fails("op = \"linear\"\n", "", "/x/demo.cu:1: 'op' is missing");
  fails("op = \"linear\"", "op = 3", "/x/demo.cu:3: 'op' must be a string");
  fails("\"linear\"", "\"gemv\"",
        "/x/demo.cu:3: unknown op 'gemv'; known are embed, rms_norm, convert, linear, rope, rope_kv, "
        "attention, add, swiglu, gather, argmax, top_k, "
        "read_bandwidth, weight_range");
  fails("\"int\"", "\"double\"", "/x/demo.cu:4: unknown view 'double'; known are none, int, float");
  fails("[1, 8]", "[8, 1]",
        "/x/demo.cu:5: 'm' must be [least, most] with 1 <= least <= most, or most = 0 for unbounded");
  fails("[1, 8]", "[1]", "/x/demo.cu:5: 'm' must be [least, most] tokens, most = 0 for unbounded");
  fails("[\"planar\", \"row_major\"]", "[]",
        "/x/demo.cu:6: a kernel that reads weights names the layouts that it takes");
  fails("[\"planar\", \"row_major\"]", "[\"planar\", 1]",
        "/x/demo.cu:6: 'layouts' must be an array of strings");
  fails("arch = 80", "arch = 8.0", "/x/demo.cu:7: 'arch' must be an integer");
  fails("features = []", "features = [\"tma\"]", "/x/demo.cu:8: unknown feature 'tma'; known is a");
  fails("summary =", "sumary =",
        "/x/demo.cu:9: unknown key 'sumary' in a template; known are name, op, view, m, layouts, arch, "
        "features, summary, params, presets, formats, epilogues, "
        "segments, norm");
  fails("default = 2", "default = 3",
        "/x/demo.cu:11: parameter 'rows': the default 3 is not among its values");
  fails("rows = {", "Rows = {",
        "/x/demo.cu:11: parameter 'Rows': a name is lower case letters, digits and _");
  fails("meaning = \"rows per warp\"", "why = 1",
        "/x/demo.cu:11: unknown key 'why' in a parameter; known are values, default, meaning");
  fails("features = []", "features = []\nepilogues = [\"gelu\"]",
        "/x/demo.cu:9: unknown epilogue 'gelu'; known are none, residual, swiglu");
  fails("*/", "[[presets]]\nk = [1]\nparams = {}\nwhy = \"\"\n*/",
        "/x/demo.cu:13: 'k' must be [least, most]");
  fails("*/", "[[presets]]\nparams = { lanes = 1 }\nwhy = \"\"\n*/",
        "/x/demo.cu:13: 'lanes' is no parameter of this template");
  fails("*/", "[[presets]]\nparams = { rows = 3 }\nwhy = \"\"\n*/",
        "/x/demo.cu:13: 3 is not among the values of 'rows'");
  fails("name = \"demo\"", "name = \"other\"", "/x/demo.cu:2: the name 'other' differs from the file's");
  CHECK_THROWS_WITH_AS(
      parse_template("/x/demo.ptx", kGood),
      "/x/demo.ptx:1: 'formats' is missing: literal PTX reads the bytes of certain formats, so it names them",
      Error);
  CHECK_THROWS_WITH_AS(parse_template("/x/demo.ptx", replaced(replaced(kGood, "features = []",
                                                                       "features = []\nformats = [\"f32\"]"),
                                                              "code", "{{k N}}")),
                       "/x/demo.ptx:15: a placeholder is {{name}}", Error);
}

TEST_CASE("a folder of templates: duplicates, emptiness and unreadable folders are errors") {
  char name[] = "/tmp/apr_templates_XXXXXX";
  const fs::path folder = ::mkdtemp(name);
  CHECK_THROWS_WITH_AS(read_registry(folder),
                       ("kernel templates " + folder.string() + ": there is no .cu or .ptx file").c_str(),
                       Error);
  std::ofstream(folder / "demo.cu") << kGood;
  std::ofstream(folder / "demo.h") << "// a header\n";
  CHECK(read_registry(folder).templates.size() == 1);
  CHECK(read_registry(folder).headers.size() == 1);
  std::ofstream(folder / "demo.ptx") << replaced(kGood, "features = []",
                                                 "features = []\nformats = [\"f32\"]");
  CHECK_THROWS_AS(read_registry(folder), Error);
  fs::remove_all(folder);
  CHECK_THROWS_AS(read_registry(folder), Error);
  CHECK_THROWS_AS(find_template_folder("/nowhere"), Error);
}

TEST_CASE("the shipped templates are good, and each op of a plan has one") {
  const Registry registry = shipped();
  CHECK(registry.templates.size() >= 14);
  for (int op = 0; op < kOps; ++op) {
    const std::string name = to_string(static_cast<Op>(op));
    CAPTURE(name);
    CHECK(std::any_of(registry.templates.begin(), registry.templates.end(),
                      [&](const Template& t) { return t.op == static_cast<Op>(op); }));
  }
}

TEST_CASE("choosing: the spec decides, and a refusal tells why") {
  Registry registry;
  registry.templates = {parse_template("/x/demo.cu", kGood)};
  KernelSpec spec = gemv("q4_k", 512, 256);
  std::string why;
  const auto config = choose(registry, spec, kTarget, &why);
  REQUIRE(config.has_value());
  CHECK(std::string(config->layouts[0]->name) == "planar");
  CHECK(describe(config->params) == "rows=2");
  const auto refused = [&](KernelSpec s, const Target& target, const std::string& reason) {
    CAPTURE(reason);
    CHECK_FALSE(choose(registry, s, target, &why).has_value());
    CHECK(why == "\n  demo: " + reason);
  };
  KernelSpec other = spec;
  other.view = View::Float;
  refused(other, kTarget, "eats the int view");
  other = spec, other.m = 9;
  refused(other, kTarget, "serves 1 to 8 tokens");
  other = spec, other.m = 0;
  refused(other, kTarget, "serves 1 to 8 tokens");
  refused(spec, make_target(75, 40, 65536, {75, 80}), "needs compute capability 8.0");
  other = gemv("f32", 16, 16);
  other.segments[0].layout = nullptr;
  CHECK(choose(registry, other, kTarget, &why)->layouts[0]->n_planes ==
        1);  // has no planes: the second choice
  other.op = Op::TopK;
  CHECK_FALSE(choose(registry, other, kTarget, &why).has_value());
  CHECK(why == "\n  no template has op top_k");
}

TEST_CASE("choosing: architecture, range and name order; presets; limits of literal templates") {
  Registry registry;
  const auto named = [&](const std::string& name, const std::string& from, const std::string& to) {
    registry.templates.push_back(parse_template(
        "/x/" + name + ".cu", replaced(replaced(kGood, "\"demo\"", "\"" + name + "\""), from, to)));
  };
  named("a", "arch", "arch");
  named("b", "arch = 80", "arch = 90");
  named("c", "[1, 8]", "[1, 1]");
  const KernelSpec spec = gemv("q4_k", 512, 256);
  CHECK(choose(registry, spec, kTarget, nullptr)->kernel->name == "b");
  CHECK(choose(registry, spec, kTarget, nullptr)->reason ==
        "newest architecture, then narrowest range of tokens");
  CHECK(choose(registry, spec, kTarget, nullptr)->rejected ==
        "c: able, but comes after\na: able, but comes after");
  CHECK(choose(registry, spec, make_target(80, 108, 166912, {80}), nullptr)->kernel->name == "c");

  registry.templates = {parse_template(
      "/x/demo.cu",
      replaced(kGood, "*/",
               "[[presets]]\nk = [1, 300]\nbits = [5, 5]\nparams = { rows = 4 }\nwhy = \"short rows\"\n*/"))};
  CHECK(describe(choose(registry, spec, kTarget, nullptr)->params) == "rows=4");
  CHECK(choose(registry, spec, kTarget, nullptr)->reason.ends_with("parameters: short rows"));
  CHECK(describe(choose(registry, gemv("q4_k", 512, 512), kTarget, nullptr)->params) == "rows=2");
  CHECK(describe(choose(registry, gemv("q8_0", 512, 256), kTarget, nullptr)->params) == "rows=2");

  registry.templates = {parse_template(
      "/x/demo.cu",
      replaced(kGood, "features = []",
               "features = []\nformats = [\"q8_0\"]\nsegments = 1\nnorm = false\nepilogues = [\"none\"]"))};
  std::string why;
  CHECK_FALSE(choose(registry, spec, kTarget, &why).has_value());
  CHECK(why == "\n  demo: does not read q4_k");
  KernelSpec other = gemv("q8_0", 512, 256);
  CHECK(choose(registry, other, kTarget, &why).has_value());
  other.constants[1].value = 1;
  CHECK_FALSE(choose(registry, other, kTarget, &why).has_value());
  CHECK(why == "\n  demo: folds no norm in");
  other = gemv("q8_0", 512, 256);
  other.constants[0].value = 1;
  CHECK_FALSE(choose(registry, other, kTarget, &why).has_value());
  CHECK(why == "\n  demo: has no residual epilogue");
  other = gemv("q8_0", 512, 256);
  other.segments.push_back(other.segments[0]);
  CHECK_FALSE(choose(registry, other, kTarget, &why).has_value());
  CHECK(why == "\n  demo: takes 1 matrices at most");
}

TEST_CASE("targets: machine code where the compiler knows the device, else what the driver can still use") {
  CHECK(make_target(90, 132, 1, {80, 90}).arch == "sm_90a");
  CHECK(make_target(100, 148, 1, {80, 90, 100}).arch == "sm_100a");
  CHECK(make_target(80, 108, 1, {80, 90}).arch == "sm_80");
  CHECK(make_target(86, 84, 1, {80, 90}).arch == "sm_80");
  CHECK(make_target(100, 148, 1, {80, 90}).arch == "compute_90");
  CHECK_THROWS_AS(make_target(60, 56, 1, {75, 80}), Error);
}

TEST_CASE("the specialised source: prelude, codecs once, only headers that are reached; and its key") {
  const Registry registry = shipped();
  KernelSpec spec = gemv("q4_k", 512, 256);
  spec.segments.push_back(segment("q6_k", 96, true));
  spec.segments.push_back(segment("q4_k", 96));
  const auto config = choose(registry, spec, kTarget, nullptr);
  REQUIRE(config.has_value());
  const Specialised s = specialise(registry, spec, *config, kTarget);
  const auto has = [&](const std::string& text) { return s.source.find(text) != std::string::npos; };
  CHECK(has("constexpr int kK = 256;\n"));
  CHECK(has("constexpr int kSegments = 3;\n"));
  CHECK(has("constexpr bool kNorm = false;\n"));
  CHECK(
      has("struct Segment1 { using Codec = apr::Q6K; using Layout = apr::Q6K::Planar; static constexpr int "
          "kN = 96; static constexpr bool kBias = true; };\n"));
  CHECK(has("using Segments = apr::SegmentList<Segment0, Segment1, Segment2>;\n"));
  CHECK(s.source.find("#include \"codec/q4_k.h\"") == s.source.rfind("#include \"codec/q4_k.h\""));
  CHECK(std::any_of(s.headers.begin(), s.headers.end(),
                    [](const NamedText& h) { return h.name == "apr/codec.h"; }));
  CHECK_FALSE(std::any_of(s.headers.begin(), s.headers.end(),
                          [](const NamedText& h) { return h.name == "tile_attention.h"; }));

  const std::string key = cache_key(s, "NVRTC 13.0");
  CHECK(key == cache_key(specialise(registry, spec, *config, kTarget), "NVRTC 13.0"));
  CHECK(key != cache_key(s, "NVRTC 13.1"));
  Specialised other = s;
  other.headers[0].text += " ";
  CHECK(key != cache_key(other, "NVRTC 13.0"));
  other = s, other.options[0] = "--gpu-architecture=sm_80";
  CHECK(key != cache_key(other, "NVRTC 13.0"));
  other = s, other.source += " ";
  CHECK(key != cache_key(other, "NVRTC 13.0"));
  KernelConfig changed = *config;
  changed.params[0].value += 1;
  CHECK(key != cache_key(specialise(registry, spec, changed, kTarget), "NVRTC 13.0"));
}

TEST_CASE("literal templates are filled, and unknown placeholders and headers are errors") {
  Registry registry;
  const std::string literal = replaced(kGood, "features = []", "features = []\nformats = [\"q4_k\"]");
  registry.templates = {
      parse_template("/x/demo.ptx", replaced(literal, "code", "N {{kN}} K {{kK}} rows {{rows}}"))};
  const KernelSpec spec = gemv("q4_k", 512, 256);
  const Specialised s = specialise(registry, spec, *choose(registry, spec, kTarget, nullptr), kTarget);
  CHECK(s.literal);
  CHECK(s.source.find("N 512 K 256 rows 2") != std::string::npos);
  registry.templates = {parse_template("/x/demo.ptx", replaced(literal, "code", "{{kZ}}"))};
  CHECK_THROWS_AS(specialise(registry, spec, *choose(registry, spec, kTarget, nullptr), kTarget), Error);
  registry.templates = {parse_template("/x/demo.cu", kGood)};
  CHECK_THROWS_WITH_AS(
      specialise(registry, spec, *choose(registry, spec, kTarget, nullptr), kTarget),
      "/x/demo.cu: includes \"demo.h\", which is neither beside it nor apr/codec.h nor a codec", Error);
}

TEST_CASE("building: each source once, in parallel, and the first failure comes through") {
  KernelCache cache({"", 0, "test", {}});
  std::vector<Specialised> sources;
  for (int i = 0; i < 20; ++i)
    sources.push_back({"k.cu", "k", "source " + std::to_string(i % 10), {}, {}, false});
  std::atomic<int> compiled{0};
  JitReport report;
  size_t shown = 0;
  const auto images = build_kernels(
      sources, cache,
      [&](const Specialised& s) {
        return ++compiled, BuiltKernel{"cubin of " + s.source, "ptx", s.source, ""};
      },
      "test", 4,
      [&](size_t done, size_t total) {
        shown = done;
        CHECK(total == 10);
      },
      report);
  CHECK(compiled == 10);
  CHECK(report.compiled == 10);
  CHECK(shown == 10);
  for (size_t i = 0; i < sources.size(); ++i) CHECK(images[i].cubin == "cubin of " + sources[i].source);
  CHECK_THROWS_WITH_AS(build_kernels(
                           sources, cache,
                           [](const Specialised& s) -> BuiltKernel {
                             if (s.source == "source 7") throw Error("{}", "seven");
                             return {"x", "", "", ""};
                           },
                           "test", 3, {}, report),
                       "seven", Error);
}
