// Runs the compiler over one source file as the build does (compile_commands.json), checking syntax only, and
// collects what it says about switches.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <vector>

namespace apr_test {

struct CompileCommand {
  std::filesystem::path directory;     // in which it runs
  std::filesystem::path file;          // absolute
  std::vector<std::string> arguments;  // without the source file, its outputs and dependency files
};

// All C++ entries of FOLDER/compile_commands.json. Throws std::runtime_error when it is missing or not
// understood.
std::vector<CompileCommand> read_compile_commands(const std::filesystem::path& folder);

struct CompileResult {
  bool accepted;
  std::string output;  // of the compiler
  // Where it rejected a switch for not handling ContractExtra.
  struct Rejection {
    std::filesystem::path file;
    int line;
    auto operator<=>(const Rejection&) const = default;
  };
  std::set<Rejection> rejections;
};

// Checks `source` with the command's options, with or without the extra enumerator.
CompileResult check_syntax(const CompileCommand& command, const std::filesystem::path& source,
                           bool extra_enumerator);

}  // namespace apr_test
