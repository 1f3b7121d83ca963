#include "core/probe/probe.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <set>

#include "core/base/error.h"
#include "core/probe/nearest.h"

using namespace apr;

namespace {

ReadProbes read(std::vector<const char*> environment) {
  environment.push_back(nullptr);
  return read_probes(environment.data());
}

std::string error_of(const char* setting) {
  try {
    read({setting});
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::Usage);
    return error.what();
  }
  return "";
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// What announce_probes() prints on stderr.
std::string announcement() {
  std::fflush(stderr);
  std::FILE* const file = std::tmpfile();
  const int saved = dup(2);
  dup2(fileno(file), 2);
  announce_probes();
  std::fflush(stderr);
  dup2(saved, 2);
  close(saved);
  std::string text(4096, '\0');
  std::rewind(file);
  text.resize(std::fread(text.data(), 1, text.size(), file));
  std::fclose(file);
  return text;
}

}  // namespace

TEST_CASE("unset changes nothing") {
  const ReadProbes result = read({"HOME=/root", "PATH=/bin", "APR=1", "XAPR_NO_GRAPH=1"});
  CHECK(result.warnings.empty());
  CHECK(result.probes.in_force.empty());
  CHECK_FALSE(result.probes.no_graph);
  CHECK_FALSE(result.probes.skip_parity_gate);
  CHECK_FALSE(result.probes.cpu_isa);
  CHECK(result.probes.plugin_path.empty());
  CHECK(backend_settings(result.probes).empty());
  CHECK(read_probes(nullptr).probes.in_force.empty());
}

TEST_CASE("one convention for flags") {
  for (const char* text : {"1", "true", "on", "yes", "TRUE", "Yes"}) {
    CHECK(read({(std::string("APR_NO_GRAPH=") + text).c_str()}).probes.no_graph);
  }
  for (const char* text : {"0", "false", "off", "no", "OFF"}) {
    const Probes probes = read({(std::string("APR_NO_GRAPH=") + text).c_str()}).probes;
    CHECK_FALSE(probes.no_graph);
    CHECK(probes.in_force.size() == 1);  // set, though to what holds anyway
  }
  for (const char* setting :
       {"APR_NO_GRAPH=", "APR_NO_GRAPH=2", "APR_NO_GRAPH=y", "APR_NO_GRAPH= 1", "APR_NO_GRAPH=enabled"}) {
    const std::string message = error_of(setting);
    CHECK(has(message, setting));
    CHECK(has(message, "1, true, on, yes or 0, false, off, no"));
  }
}

TEST_CASE("every type of value") {
  CHECK(read({"APR_CPU_ISA=avx2"}).probes.cpu_isa == APR_ISA_AVX2);
  CHECK(read({"APR_CPU_ISA=Portable"}).probes.cpu_isa == APR_ISA_PORTABLE);
  CHECK(has(error_of("APR_CPU_ISA=sse"), "good values are portable, avx2, avx512"));
  CHECK(has(error_of("APR_CPU_ISA="), "good values are portable"));

  const Probes paths = read({"APR_PLUGIN_PATH=/a:/b/c:"}).probes;
  CHECK(paths.plugin_path == std::vector<std::filesystem::path>{"/a", "/b/c"});
  CHECK(has(error_of("APR_PLUGIN_PATH=/a:b"), "'b' is relative to whatever the working directory is"));
  CHECK(has(error_of("APR_PLUGIN_PATH=."), "absolute paths"));
  CHECK(has(error_of("APR_PLUGIN_PATH="), "good values are absolute paths"));

  CHECK(read({"APR_KERNEL_CACHE=/x/../y"}).probes.kernel_cache == "/y");
  CHECK(read({"APR_STAGE_DUMP=d"}).probes.stage_dump == std::filesystem::current_path() / "d");
  CHECK(has(error_of("APR_STAGE_DUMP="), "good values are a path"));

  const auto forced =
      read({"APR_FORCE_QTYPE=blk.*.ffn_down.weight=Q8_0,attn_v=vendor.nf4"}).probes.force_qtype;
  REQUIRE(forced.size() == 2);
  CHECK(forced[0].pattern == "blk.*.ffn_down.weight");
  CHECK(forced[0].format == "q8_0");
  CHECK(forced[1].pattern == "attn_v");
  CHECK(forced[1].format == "vendor.nf4");
  for (const char* bad : {"APR_FORCE_QTYPE=", "APR_FORCE_QTYPE=q8_0",
                          "APR_FORCE_QTYPE=a=", "APR_FORCE_QTYPE==q8_0", "APR_FORCE_QTYPE=a=q8_0,"}) {
    CHECK(has(error_of(bad), "is not pattern=format"));
  }
  const std::string unknown = error_of("APR_FORCE_QTYPE=a=q9_9");
  CHECK(has(unknown, "'q9_9' is no weight format"));
  CHECK(has(unknown, "q4_k"));

  CHECK(read({"APR_LM_HEAD_FORCE_QTYPE=f16"}).probes.lm_head_force_qtype->text == "f16");
  CHECK(has(error_of("APR_LM_HEAD_FORCE_QTYPE=extension"), "is no weight format"));
}

TEST_CASE("unknown names are warnings with the nearest known one") {
  const ReadProbes typo = read({"APR_NO_GRAHP=1"});
  REQUIRE(typo.warnings.size() == 1);
  CHECK(has(typo.warnings[0], "APR_NO_GRAHP is no probe of this program"));
  CHECK(has(typo.warnings[0], "did you mean APR_NO_GRAPH?"));
  CHECK(typo.probes.in_force.empty());
  const ReadProbes far = read({"APR_SOMETHING_ELSE_ALTOGETHER=1"});
  REQUIRE(far.warnings.size() == 1);
  CHECK_FALSE(has(far.warnings[0], "did you mean"));
  CHECK(has(far.warnings[0], "aprctl probes"));
  CHECK(read({"APR_TEST_ANYTHING=1"}).warnings.empty());
  // A name from a file is made safe for the terminal.
  CHECK_FALSE(has(read({"APR_\x1b[31m=1"}).warnings[0], "\x1b"));
}

TEST_CASE("edit distance") {
  CHECK(edit_distance("", "abc") == 3);
  CHECK(edit_distance("abc", "abc") == 0);
  CHECK(edit_distance("abcd", "abdc") == 1);  // swap
  CHECK(edit_distance("kitten", "sitting") == 3);
  CHECK(nearest("APR_CPU_ISA_", std::vector<std::string_view>{"APR_NO_GRAPH", "APR_CPU_ISA"}) ==
        "APR_CPU_ISA");
  CHECK_FALSE(nearest(std::string(100000, 'x'), std::vector<std::string_view>{"x"}));
}

TEST_CASE("the table") {
  std::set<std::string_view> names, settings;
  for (const ProbeInfo& probe : probe_table()) {
    CHECK(names.insert(probe.name).second);
    CHECK(probe.name.starts_with("APR_"));
    CHECK_FALSE(probe.name.starts_with("APR_TEST_"));
    if (!probe.setting.empty()) CHECK(settings.insert(probe.setting).second);
    CHECK_FALSE(probe.meaning.empty());
    CHECK_FALSE(probe.when_unset.empty());
    CHECK_FALSE(probe_values(probe).empty());
  }
  // Two rows for one member would make one of them lie.
  for (const ProbeInfo& a : probe_table()) {
    for (const ProbeInfo& b : probe_table()) CHECK((a.slot == b.slot) == (a.name == b.name));
  }
}

TEST_CASE("backends get parsed values") {
  const Probes probes =
      read({"APR_NO_FUSION=yes", "APR_CPU_ISA=AVX2", "APR_NO_GRAPH=off", "APR_PLUGIN_PATH=/p"}).probes;
  const std::vector<std::pair<std::string, std::string>> expected = {
      {"isa", "avx2"}, {"no_graph", "0"}, {"no_fusion", "1"}};
  CHECK(backend_settings(probes) == expected);
}

TEST_CASE("what is set is announced on stderr, in the table's order") {
  CHECK(announcement() == "");
  setenv("APR_NO_FUSION", "1", 1);
  setenv("APR_CPU_ISA", "avx2", 1);
  setenv("APR_NO_FUSON", "1", 1);
  const std::string text = announcement();
  unsetenv("APR_NO_FUSION");
  unsetenv("APR_CPU_ISA");
  unsetenv("APR_NO_FUSON");
  CHECK(has(text, "did you mean APR_NO_FUSION?"));
  const size_t isa = text.find("probe APR_CPU_ISA=avx2 is set: "),
               fusion = text.find("probe APR_NO_FUSION=1 is set: ");
  CHECK(isa != std::string::npos);
  CHECK(fusion != std::string::npos);
  CHECK(isa < fusion);
}
