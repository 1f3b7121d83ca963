// The contract of the exhaustive dispatch: with one more WeightQuantType, the compiler refuses every switch
// over it. It is the compiler that is asked, file by file; a text scan only says which switches there are.
#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "core/base/thread_pool.h"
#include "tests/base/temp_dir.h"
#include "tests/dispatch/compiler.h"
#include "tests/dispatch/dispatch_sites.h"

namespace fs = std::filesystem;
using apr_test::CompileCommand;
using apr_test::CompileResult;
using apr_test::SiteFile;

namespace {

bool is_header(const fs::path& path) {
  return path.extension() == ".h" || path.extension() == ".hpp" || path.extension() == ".inl" ||
         path.extension() == ".cuh";
}

std::string content_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// The translation units through which a file's switches reach the compiler. A source is its own. For a
// header: every built unit that includes it, since g++ looks at a template's switch only where the template
// is instantiated, and at last a unit of nothing but that header.
struct Unit {
  const CompileCommand* command;
  fs::path source;
};

std::vector<Unit> units_of(const SiteFile& file, const fs::path& root, const fs::path& scratch,
                           const std::vector<CompileCommand>& commands) {
  std::vector<Unit> units;
  for (const CompileCommand& command : commands) {
    if (command.file == file.path) return {{&command, file.path}};
  }
  // A source that this build does not compile, or a header: checked with the options of the enum's own
  // source.
  const fs::path enum_source = fs::weakly_canonical(root / "core/dispatch/weight_quant_type.cpp");
  const auto own = std::find_if(commands.begin(), commands.end(),
                                [&](const CompileCommand& command) { return command.file == enum_source; });
  if (own == commands.end()) return {};
  if (!is_header(file.path)) return {{&*own, file.path}};

  for (const CompileCommand& command : commands) {
    if (content_of(command.file).find("#include \"" + file.name + "\"") != std::string::npos) {
      units.push_back({&command, command.file});
    }
  }
  std::string flat = file.name + ".cpp";
  std::replace(flat.begin(), flat.end(), '/', '_');
  std::ofstream(scratch / flat) << "#include \"" << file.path.string() << "\"\n";
  units.push_back({&*own, scratch / flat});
  return units;
}

// What is wrong with one file's sites; empty when the contract holds.
std::vector<std::string> problems_of(const SiteFile& file, const std::vector<Unit>& units) {
  std::vector<std::string> problems;
  const auto say = [&](int line, const std::string& what) {
    problems.push_back(file.path.string() + ":" + std::to_string(line) + ": " + what);
  };
  for (const int line : file.scan.using_enum_lines)
    say(line, "'using enum WeightQuantType' hides dispatch sites; write the names out");
  for (const apr_test::DispatchSite& site : file.scan.sites) {
    if (site.has_default) say(site.first_line, "this switch over WeightQuantType has a 'default:'");
  }
  if (units.empty()) {
    say(1, "no compile command is known for it");
    return problems;
  }

  std::vector<apr_test::DispatchSite> open = file.scan.sites;
  std::string output;
  for (const Unit& unit : units) {
    if (open.empty()) break;
    const CompileResult plain = apr_test::check_syntax(*unit.command, unit.source, false);
    if (!plain.accepted)
      say(1, "does not compile as it is, in " + unit.source.string() + ":\n" + plain.output);
    const CompileResult extra = apr_test::check_syntax(*unit.command, unit.source, true);
    output = extra.output;
    std::erase_if(open, [&](const apr_test::DispatchSite& site) {
      return std::any_of(
          extra.rejections.begin(), extra.rejections.end(), [&](const CompileResult::Rejection& at) {
            return at.file == file.path && at.line >= site.first_line && at.line <= site.last_line;
          });
    });
  }
  for (const apr_test::DispatchSite& site : open) {
    say(site.first_line,
        "the compiler accepts this switch with one more WeightQuantType (or, in a template, nothing that "
        "is built instantiates it). It said:\n" +
            output);
  }
  return problems;
}

std::vector<std::string> check_all(const std::vector<SiteFile>& files, const fs::path& root,
                                   const std::vector<CompileCommand>& commands) {
  const apr_test::TempDir scratch;
  std::vector<std::vector<std::string>> found(files.size());
  apr::ThreadPool pool;
  pool.parallel_for(files.size(), 1, [&](size_t begin, size_t) {
    found[begin] = problems_of(files[begin], units_of(files[begin], root, scratch.path(), commands));
  });
  std::vector<std::string> all;
  for (auto& some : found) all.insert(all.end(), some.begin(), some.end());
  return all;
}

const fs::path kRoot = APR_SOURCE_ROOT;

bool has(const std::vector<std::string>& problems, const std::string& place, const std::string& what) {
  return std::any_of(problems.begin(), problems.end(), [&](const std::string& problem) {
    return problem.find(place) != std::string::npos && problem.find(what) != std::string::npos;
  });
}

}  // namespace

TEST_CASE("the compiler refuses every dispatch site when one more WeightQuantType exists") {
  const auto files = apr_test::find_site_files(kRoot, {"core", "aprctl", "plugins", "include"});
  size_t sites = 0;
  for (const SiteFile& file : files) {
    sites += file.scan.sites.size();
    MESSAGE(file.name << ": " << file.scan.sites.size() << " dispatch site(s)");
  }
  // If the scan finds not even these, it is the scan that is broken.
  const auto found = [&](const char* name) {
    return std::any_of(files.begin(), files.end(), [&](const SiteFile& file) { return file.name == name; });
  };
  CHECK(found("core/dispatch/weight_quant_type.cpp"));
  CHECK(found("core/dispatch/visit.h"));
  CHECK(sites >= 4);

  const auto problems = check_all(files, kRoot, apr_test::read_compile_commands(APR_BUILD_ROOT));
  for (const std::string& problem : problems) FAIL_CHECK(problem);
}

TEST_CASE("the contract test sees each way to break the contract") {
  const apr_test::TempDir dir;
  const fs::path root = fs::canonical(dir.path());
  fs::create_directories(root / "core");
  const std::string all_cases = [] {
    std::string cases;
    for (const char* name :
         {"F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K",
          "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4", "Extension"}) {
      cases += std::string("    case apr::WeightQuantType::") + name + ": return 1;\n";
    }
    return cases;
  }();
  const std::string head =
      "#include \"core/dispatch/weight_quant_type.h\"\n";  // line 1; the switch is on line 3
  const auto add = [&](const char* name, const std::string& body) {
    dir.write(std::string("core/") + name, head + body);
  };
  const std::string function = "int f(apr::WeightQuantType t) {\n";

  add("good.cpp", function + "  switch (t) {\n" + all_cases + "  }\n  return 0;\n}\n");
  add("split_line.cpp", function + "  switch (\n      t)\n  {\n" + all_cases + "  }\n  return 0;\n}\n");
  add("default.cpp", function + "  switch (t) {\n" + all_cases + "    default: return 2;\n  }\n}\n");
  add("cast.cpp", function +
                      "  switch (static_cast<int>(t)) {\n    case "
                      "static_cast<int>(apr::WeightQuantType::F32): return 1;\n"
                      "  }\n  return 0;\n}\n");
  add("alias.cpp",
      "using Q = apr::WeightQuantType; int f(Q t) {\n  switch (static_cast<int>(t)) {\n"
      "    case int(Q::F32): return 1;\n  }\n  return 0;\n}\n");
  add("silenced.cpp",
      "#pragma GCC diagnostic ignored \"-Wswitch\"\n#pragma GCC diagnostic ignored \"-Wswitch-enum\"\n" +
          function + "  switch (t) {\n" + all_cases + "  }\n  return 0;\n}\n");
  add("forgotten.cpp",
      function + "  switch (t) {\n    case apr::WeightQuantType::F32: return 1;\n  }\n  return 0;\n}\n");
  add("using_enum.cpp", function + "  using enum apr::WeightQuantType;\n  return t == F32;\n}\n");
  add("template.h", "#pragma once\ntemplate <typename T> int f(T t) {\n  switch (t) {\n" + all_cases +
                        "  }\n  return 0;\n}\n");
  add("in_comment.cpp",
      "// switch (t) { case WeightQuantType::F32: default: }\n" + function + "  return 0;\n}\n");

  // As the real build compiles the enum's own source, seen from the real root.
  std::vector<CompileCommand> commands = apr_test::read_compile_commands(APR_BUILD_ROOT);
  std::erase_if(commands, [](const CompileCommand& c) {
    return c.file != fs::canonical(kRoot / "core/dispatch/weight_quant_type.cpp");
  });
  REQUIRE(commands.size() == 1);
  CompileCommand command = commands[0];
  command.arguments.push_back("-I" + kRoot.string());
  commands.clear();
  const auto files = apr_test::find_site_files(root, {"core", "no-such-folder"});
  for (const SiteFile& file : files) {
    if (is_header(file.path)) continue;
    command.file = file.path;
    commands.push_back(command);
  }
  command.file = root / "core/dispatch/weight_quant_type.cpp";
  commands.push_back(command);

  const auto problems = check_all(files, root, commands);
  std::string shown;
  for (const std::string& problem : problems) shown += problem + "\n";
  CAPTURE(shown);
  CHECK_FALSE(has(problems, "good.cpp", ""));
  CHECK_FALSE(has(problems, "split_line.cpp", ""));
  CHECK_FALSE(has(problems, "in_comment.cpp", ""));
  CHECK(has(problems, "default.cpp:3", "has a 'default:'"));
  CHECK(has(problems, "cast.cpp:3", "accepts this switch"));
  CHECK(has(problems, "alias.cpp:3", "accepts this switch"));
  CHECK(has(problems, "silenced.cpp:5", "accepts this switch"));
  CHECK(has(problems, "forgotten.cpp", "does not compile as it is"));
  CHECK(has(problems, "using_enum.cpp:3", "using enum"));
#ifndef __clang__
  // clang warns at the template itself.
  CHECK(has(problems, "template.h:4", "nothing that is built instantiates it"));
#endif
}

TEST_CASE("the scan understands what it reads") {
  using apr_test::scan_dispatch_sites;
  CHECK(scan_dispatch_sites("switch (x) { case 1: default: break; }").sites.empty());
  CHECK(scan_dispatch_sites("const char* s = \"switch (t) { case WeightQuantType::F32: }\";").sites.empty());
  CHECK(scan_dispatch_sites("auto s = R\"x(switch (t) { case WeightQuantType::F32: })x\";").sites.empty());
  CHECK(scan_dispatch_sites("/* switch (t) { case WeightQuantType::F32: } */").sites.empty());
  CHECK(scan_dispatch_sites("switcher (t) { case WeightQuantType::F32: }").sites.empty());

  // The default of an inner switch is not the outer's, and the other way round.
  const auto nested = scan_dispatch_sites(
      "switch (t) {\n case apr::WeightQuantType::F32:\n  switch (i) { case 1: default: break; }\n}\n"
      "switch (i) { case 1:\n switch (t) { case WeightQuantType::F16: break; default: break; }\n default: "
      "break; }");
  REQUIRE(nested.sites.size() == 2);
  CHECK(nested.sites[0].first_line == 1);
  CHECK_FALSE(nested.sites[0].has_default);
  CHECK(nested.sites[1].first_line == 6);
  CHECK(nested.sites[1].has_default);

  // Digit separators are no character literals; aliases are followed.
  const auto tricky = scan_dispatch_sites(
      "using Q = apr::WeightQuantType;\nint n = 1'000'000; char c = '\\''; char d = '\"';\nswitch (t) { case "
      "Q::F32: break; }");
  REQUIRE(tricky.sites.size() == 1);
  CHECK(tricky.sites[0].first_line == 3);
  CHECK(scan_dispatch_sites("using enum apr::WeightQuantType;").using_enum_lines.size() == 1);
  CHECK(scan_dispatch_sites("using enum Other;").using_enum_lines.empty());
}
