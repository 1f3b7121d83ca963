// Profiles as text: what is refused, with which line, and what a written one says.
#include <doctest/doctest.h>

#include <fstream>

#include "apr/rules.hpp"
#include "core/base/error.h"
#include "core/profile/select.h"
#include "tests/base/temp_dir.h"

using namespace apr;

namespace {

std::string error_of(const std::string& text) {
  try {
    parse_profile(text, "p.toml");
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

// Kernels of an imaginary backend.
std::vector<KernelTemplate> kernels() {
  std::vector<KernelTemplate> list;
  list.push_back({"gemv_a",
                  "linear",
                  "int",
                  "",
                  "",
                  "",
                  "1",
                  1,
                  8,
                  {"planar", "row_major"},
                  {},
                  {{"rows", "", {1, 2, 4}, {}, 2}, {"isa", "", {0, 1}, {"low", "high"}, 1}}});
  list.push_back({"gemv_b", "linear", "float", "", "", "", "2", 1, 8, {"row_major"}, {"f32"}, {}});
  list.push_back({"gemm", "linear", "float", "", "", "", "3", 9, 0, {"planar"}, {}, {}});
  list.push_back({"norm", "rms_norm", "none", "", "", "", "4", 1, 0, {}, {}, {}});
  return list;
}

std::string refusal(const std::string& text, const std::string& backend = "x") {
  try {
    KernelRules rules;
    rules.add(parse_profile(text, "p.toml").rules, backend, kernels());
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

apr_kernel_rule only_rule(const KernelRules& rules) {
  REQUIRE(rules.size() == 1);
  return *rules.c()[0];
}

bool matches(const std::string& text, const KernelDemand::Tensor& tensor, uint32_t least = 1,
             uint32_t most = 1, const char* op = "linear") {
  KernelRules rules;
  rules.add(parse_profile(text, "p.toml").rules, "x", kernels());
  return rule_matches(only_rule(rules), {}, {op, least, most, "sm_90a", &tensor, 1});
}

constexpr KernelDemand::Tensor kDown = {"blk.3.ffn_down.weight", "ffn_down", "q6_k", "planar", 3584, 18944};

}  // namespace

TEST_CASE("what is wrong with a profile is said with its line") {
  const struct {
    const char *text, *says;
  } cases[] = {
      {"rules = 3", "p.toml:1: rules are written as [[rules]]"},
      {"summary = 'x'\ncolour = 1",
       "p.toml:2: unknown key 'colour' in a profile; known are summary, backend, precise, stamp, rules, "
       "name"},
      {"[[rules]]\ntemplate = 'gemv_a'\nrole = 3", "p.toml:3: 'role' must be a string"},
      {"[[rules]]\ntemplate = 'gemv_a'\nroll = 'x'",
       "p.toml:3: unknown key 'roll' in a rule; known are op, qtype,"},
      {"[[rules]]\nrole = 'x'", "p.toml:1: the rule chooses nothing: it needs 'template' or 'layout'"},
      {"[[rules]]\ntemplate = 'gemv_a'\nk = [9, 3]", "p.toml:3: 'k' = [9, 3] is empty"},
      {"[[rules]]\ntemplate = 'gemv_a'\nm = [1, 2, 3]",
       "p.toml:3: 'm' must be a whole number or [least, most]"},
      {"[[rules]]\ntemplate = 'gemv_a'\nm = 0", "p.toml:3: 'm' has 0; it is 1 to 4294967295"},
      {"[[rules]]\ntemplate = 'gemv_a'\nqtype = 'q9_k'",
       "p.toml:3: 'q9_k' is no weight format; known are f32, f16,"},
      {"[[rules]]\ntemplate = 'gemv_a'\nisa = 'sse2'",
       "p.toml:3: 'sse2' is no instruction set; known are portable, avx2, avx512"},
      {"[[rules]]\ntemplate = 'gemv_a'\narch = 'a'\nisa = 'avx2'",
       "p.toml:4: a rule has 'arch' or 'isa', not both"},
      {"[[rules]]\nlayout = 'planar'\nparams = { rows = 2 }", "p.toml:3: 'params' belong to a kernel"},
      {"[[rules]]\ntemplate = 'gemv_a'\nparams = { rows = 1.5 }",
       "p.toml:3: parameter 'rows' must be a whole number or a string"},
      {"[[rules]]\ntemplate = ''", "p.toml:2: 'template' is empty"},
      {"[[rules]\n", "p.toml:1: "},
      {"precise = 1", "p.toml:1: 'precise' must be true or false"},
      {"name = 'q'", "p.toml:1: the name 'q' differs from the file's"},
      {"[stamp]\ndevice = 'd'", "p.toml:1: 'arch' is missing"},
  };
  for (const auto& c : cases) {
    CAPTURE(c.text);
    CHECK_MESSAGE(error_of(c.text).starts_with(c.says), error_of(c.text));
  }
}

TEST_CASE("rules are held against the kernels that there are") {
  const struct {
    const char *text, *says;
  } cases[] = {
      {"op = 'linar'\ntemplate = 'gemv_a'", "p.toml:1: backend x has no op 'linar'; it has linear, rms_norm"},
      {"op = 'linear'\ntemplate = 'gemv_z'",
       "p.toml:1: backend x has no kernel 'gemv_z'; it has gemv_a, gemv_b, gemm"},
      {"op = 'rms_norm'\ntemplate = 'gemv_a'",
       "p.toml:1: the rule can never match: gemv_a computes op linear, not rms_norm"},
      {"m = [9, 512]\ntemplate = 'gemv_a'",
       "p.toml:1: the rule can never match: gemv_a serves 1 to 8 tokens"},
      {"m = 1\ntemplate = 'gemm'", "p.toml:1: the rule can never match: gemm serves 9 tokens and more"},
      {"role = 'x'\ntemplate = 'norm'", "p.toml:1: the rule can never match: norm reads no weights"},
      {"layout = 'tiled'",
       "p.toml:1: no kernel of backend x reads layout 'tiled'; there are planar, row_major"},
      {"layout = 'planar'\ntemplate = 'gemv_b'",
       "p.toml:1: the rule can never match: gemv_b reads layouts row_major, not planar"},
      {"qtype = 'q4_k'\ntemplate = 'gemv_b'",
       "p.toml:1: the rule can never match: gemv_b reads f32, not q4_k"},
      {"template = 'gemv_a'\nparams = { row = 2 }",
       "p.toml:3: gemv_a has no parameter 'row'; it has rows, isa"},
      {"template = 'gemv_a'\nparams = { rows = 3 }", "p.toml:3: rows of gemv_a cannot be 3; it is 1, 2, 4"},
      {"template = 'gemv_a'\nparams = { isa = 'top' }",
       "p.toml:3: isa of gemv_a cannot be \"top\"; it is \"low\", \"high\""},
      {"template = 'gemv_a'\nparams = { isa = 1 }",
       "p.toml:3: isa of gemv_a cannot be 1; it is \"low\", \"high\""},
  };
  for (const auto& c : cases) {
    CAPTURE(c.text);
    const std::string said = refusal(std::string("[[rules]]\n") + c.text);
    CHECK_MESSAGE(said.starts_with(c.says), said);
  }
  CHECK(refusal("[[rules]]\ntemplate = 'gemv_a'\nparams = { rows = 4, isa = 'low' }") == "");
}

TEST_CASE("a rule that an earlier one covers can never match") {
  const auto two = [](const std::string& a, const std::string& b) {
    return refusal("[[rules]]\n" + a + "\n[[rules]]\n" + b);
  };
  const std::string never = "the rule can never match: the one at p.toml:1 comes first";
  CHECK(two("template = 'gemv_a'", "template = 'gemv_a'\nrole = 'q'").find(never) != std::string::npos);
  CHECK(two("template = 'gemv_a'\nk = [1, 100]", "template = 'gemv_a'\nk = [5, 100]").find(never) !=
        std::string::npos);
  CHECK(two("tensor = 'blk.*'\ntemplate = 'gemv_a'", "tensor = 'blk.7.x'\ntemplate = 'gemv_a'").find(never) !=
        std::string::npos);
  CHECK(two("op = 'linear'\nlayout = 'planar'", "template = 'gemm'\nlayout = 'planar'").find(never) !=
        std::string::npos);
  // Other tokens, other roles, a wider range, another backend: no shadow.
  CHECK(two("template = 'gemv_a'", "template = 'gemm'") == "");
  CHECK(two("template = 'gemv_a'\nrole = 'q'", "template = 'gemv_a'\nrole = 'k'") == "");
  CHECK(two("template = 'gemv_a'\nk = [5, 100]", "template = 'gemv_a'\nk = [1, 100]") == "");
  CHECK(two("template = 'gemv_a'\nbackend = 'y'", "template = 'gemv_a'") == "");
}

TEST_CASE("rules of another backend are checked for syntax alone") {
  CHECK(refusal("backend = 'y'\n[[rules]]\ntemplate = 'no_such'") == "");
  CHECK(refusal("backend = 'y'\n[[rules]]\nbackend = 'x'\ntemplate = 'no_such'") != "");
  CHECK(error_of("backend = 'y'\n[[rules]]\nwrong = 1") != "");
}

TEST_CASE("when a rule matches") {
  CHECK(matches("[[rules]]\nlayout = 'planar'", kDown));
  CHECK(matches("[[rules]]\nrole = 'ffn_down'\ntemplate = 'gemv_a'", kDown));
  CHECK_FALSE(matches("[[rules]]\nrole = 'ffn_up'\ntemplate = 'gemv_a'", kDown));
  CHECK(matches("[[rules]]\ntensor = 'blk.*.ffn_down.weight'\ntemplate = 'gemv_a'", kDown));
  CHECK(matches("[[rules]]\ntensor = 'ffn_*'\ntemplate = 'gemv_a'", kDown));
  CHECK_FALSE(matches("[[rules]]\ntensor = 'blk.[012].*'\ntemplate = 'gemv_a'", kDown));
  CHECK(matches("[[rules]]\nqtype = 'Q6_K'\ntemplate = 'gemv_a'", kDown));
  CHECK(matches("[[rules]]\nn = 3584\nk = [18944, 20000]\ntemplate = 'gemv_a'", kDown));
  CHECK_FALSE(matches("[[rules]]\nn = [1, 3583]\ntemplate = 'gemv_a'", kDown));
  CHECK_FALSE(matches("[[rules]]\nlayout = 'row_major'", kDown));
  CHECK(matches("[[rules]]\narch = 'sm_90'\ntemplate = 'gemv_a'", kDown));
  CHECK_FALSE(matches("[[rules]]\narch = 'sm_9'\ntemplate = 'gemv_a'", kDown));
  CHECK_FALSE(matches("[[rules]]\narch = 'sm_80'\ntemplate = 'gemv_a'", kDown));
  // Tokens: one that the kernel serves is enough.
  CHECK(matches("[[rules]]\nm = [2, 4]\ntemplate = 'gemv_a'", kDown, 3, 4));
  CHECK_FALSE(matches("[[rules]]\nm = [1, 2]\ntemplate = 'gemv_a'", kDown, 3, 4));
}

TEST_CASE("a layout that is still open is no obstacle") {
  KernelDemand::Tensor open = kDown;
  open.layout = nullptr;
  CHECK(matches("[[rules]]\nlayout = 'row_major'", open));
}

TEST_CASE("what is written is read back") {
  Profile p = parse_profile(
      "summary = 's \"q\"'\nbackend = "
      "'x'\n[stamp]\ndevice='D'\narch='a'\nsoftware='s'\nkernels='k'\n[stamp.codecs]\nq4_k='1'\n'v.nf4'='2'\n"
      "[[rules]]\nop='linear'\nrole='r'\nqtype='q4_k'\nm=1\nk=[1,5]\ntemplate='gemv_a'\nparams={rows=4,isa='"
      "low'}\nwhy='3 us'\n",
      "p.toml");
  const std::string text = to_toml(p, {"made by a test"});
  CHECK(text.starts_with("# made by a test\n"));
  const Profile again = parse_profile(text, "p.toml");
  CHECK(to_toml(again, {"made by a test"}) == text);
  CHECK(again.summary == "s \"q\"");
  REQUIRE(again.stamp.has_value());
  CHECK(again.stamp->codecs.at("v.nf4") == "2");
  REQUIRE(again.rules.size() == 1);
  CHECK(again.rules[0].params.size() == 2);
  CHECK(again.rules[0].why == "3 us");
  CHECK(again.rules[0].k.most == 5);
}

TEST_CASE("a stamp of something else leaves the rules out") {
  const std::string text =
      "[stamp]\ndevice='D'\narch='a'\nsoftware='s'\nkernels='k'\n[stamp.codecs]\nq4_k='1'\n[[rules]]"
      "\ntemplate='gemv_a'\n";
  const ProfileStamp same{"D", "a", "s", "k", {{"q4_k", "1"}, {"f32", "9"}}};
  const auto used = [&](const ProfileStamp& here) {
    return put_in_force(parse_profile(text, "p.toml"), {}, "x", kernels(), here);
  };
  CHECK(used(same).rules->size() == 1);
  for (const auto& bend : std::vector<void (*)(ProfileStamp&)>{
           [](ProfileStamp& s) { s.device = "E"; }, [](ProfileStamp& s) { s.arch = "b"; },
           [](ProfileStamp& s) { s.software = "t"; }, [](ProfileStamp& s) { s.kernels = "l"; },
           [](ProfileStamp& s) { s.codecs["q4_k"] = "2"; }}) {
    ProfileStamp other = same;
    bend(other);
    const ProfileInForce in_force = used(other);
    CHECK(in_force.rules->size() == 0);
    CHECK(in_force.stamp_differences.size() == 1);
  }
}

TEST_CASE("APR_FORCE_KERNEL comes before the profile, and must do something") {
  const Profile profile = parse_profile("[[rules]]\ntemplate='gemv_a'\n", "p.toml");
  const ProfileInForce in_force = put_in_force(profile, {{"ffn_*", "gemv_b"}}, "x", kernels(), {});
  REQUIRE(in_force.rules->size() == 2);
  CHECK(std::string(in_force.rules->c()[0]->kernel) == "gemv_b");
  CHECK(in_force.rules->c()[0]->forced == 1);
  apr_kernel_info info{};
  info.struct_size = sizeof info;
  info.rule = "p.toml:1";
  CHECK_THROWS_WITH_AS(check_forced(in_force, {info}),
                       doctest::Contains("the pattern 'ffn_*' chose no kernel"), Error);
  info.rule = "APR_FORCE_KERNEL=ffn_*=gemv_b";
  check_forced(in_force, {info});
  CHECK(rules_used({info, info}).size() == 1);
  try {
    put_in_force(profile, {{"x", "gemv_q"}}, "x", kernels(), {});
    FAIL("accepted");
  } catch (const Error& e) {
    CHECK(e.kind() == ErrorKind::Usage);
    CHECK(std::string(e.what()).find("it has gemv_a, gemv_b, gemm, norm") != std::string::npos);
  }
}

TEST_CASE("profiles are found by file and by name") {
  const apr_test::TempDir a, b;
  std::ofstream(a.path() / "mine.toml") << "";
  std::ofstream(b.path() / "mine.toml") << "";
  std::ofstream(b.path() / "theirs.toml") << "";
  const std::vector<std::string> folders = {a.path().string(), b.path().string()};
  CHECK(find_profile("mine", folders) == (a.path() / "mine.toml").string());
  CHECK(find_profile("theirs", folders) == (b.path() / "theirs.toml").string());
  CHECK(find_profile((b.path() / "mine.toml").string(), folders) == (b.path() / "mine.toml").string());
  CHECK_THROWS_WITH_AS(find_profile("thiers", folders),
                       doctest::Contains("there is no profile 'thiers'; known are mine, theirs"), Error);
  CHECK_THROWS_WITH_AS(find_profile("no/such.toml", folders), doctest::Contains("there is no such file"),
                       Error);
}
