#include "tests/dispatch/compiler.h"

#include <sys/wait.h>

#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>

namespace apr_test {

namespace {

// A command line into its words, as a POSIX shell would: what Meson writes has quotes and backslashes, no
// expansions.
std::vector<std::string> split_command(const std::string& command) {
  std::vector<std::string> words;
  std::string word;
  bool in_word = false;
  char quote = 0;
  for (size_t i = 0; i < command.size(); ++i) {
    const char c = command[i];
    if (quote == '\'') {
      if (c == '\'')
        quote = 0;
      else
        word += c;
    } else if (c == '\\' && i + 1 < command.size()) {
      word += command[++i];
      in_word = true;
    } else if (quote == '"') {
      if (c == '"')
        quote = 0;
      else
        word += c;
    } else if (c == '\'' || c == '"') {
      quote = c;
      in_word = true;
    } else if (c == ' ' || c == '\t') {
      if (in_word) words.push_back(std::move(word));
      word.clear();
      in_word = false;
    } else {
      word += c;
      in_word = true;
    }
  }
  if (in_word) words.push_back(std::move(word));
  return words;
}

std::string quoted(const std::string& word) {
  std::string out = "'";
  for (const char c : word) {
    if (c == '\'')
      out += "'\\''";
    else
      out += c;
  }
  out += '\'';
  return out;
}

std::filesystem::path absolute_in(const std::filesystem::path& folder, const std::filesystem::path& path) {
  return std::filesystem::weakly_canonical(path.is_absolute() ? path : folder / path);
}

// "FILE:LINE:COLUMN: error: enumeration value 'ContractExtra' not handled in switch [-Werror=switch-enum]";
// clang says "not explicitly handled in switch".
void collect_rejections(const std::string& output, const std::filesystem::path& folder,
                        std::set<CompileResult::Rejection>& rejections) {
  std::istringstream lines(output);
  for (std::string line; std::getline(lines, line);) {
    if (line.find("error:") == std::string::npos || line.find("'ContractExtra'") == std::string::npos ||
        line.find("handled in switch") == std::string::npos) {
      continue;
    }
    const size_t first = line.find(':');
    rejections.insert({absolute_in(folder, line.substr(0, first)), std::stoi(line.substr(first + 1))});
  }
}

}  // namespace

std::vector<CompileCommand> read_compile_commands(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "compile_commands.json";
  std::ifstream in(path);
  if (!in)
    throw std::runtime_error(path.string() + " is missing; configure the build with Meson's ninja backend");
  std::vector<CompileCommand> commands;
  for (const nlohmann::json& entry : nlohmann::json::parse(in)) {
    CompileCommand command;
    command.directory = entry.at("directory").get<std::string>();
    command.file = absolute_in(command.directory, entry.at("file").get<std::string>());
    if (command.file.extension() == ".c") continue;
    const std::vector<std::string> words = split_command(entry.at("command").get<std::string>());
    for (size_t i = 0; i < words.size(); ++i) {
      const std::string& word = words[i];
      if (i == 0 && std::filesystem::path(word).filename() == "ccache") continue;
      if (word == "-c" || word == "-MD" || word == "-MMD") continue;
      if (word == "-o" || word == "-MF" || word == "-MQ" || word == "-MT") {
        ++i;
        continue;
      }
      if (!word.starts_with("-") && absolute_in(command.directory, word) == command.file) continue;
      command.arguments.push_back(word);
    }
    commands.push_back(std::move(command));
  }
  return commands;
}

CompileResult check_syntax(const CompileCommand& command, const std::filesystem::path& source,
                           bool extra_enumerator) {
  std::string line = "cd " + quoted(command.directory.string()) + " && LC_ALL=C";
  for (const std::string& argument : command.arguments) line += " " + quoted(argument);
  // clang reports a forgotten enumerator under -Wswitch where there is no default, and under -Wswitch-enum
  // where there is one; g++ under -Wswitch-enum in both cases.
  line += " -fsyntax-only -fdiagnostics-color=never -Werror=switch -Werror=switch-enum";
  if (extra_enumerator) line += " -DAPR_CONTRACT_EXTRA_QTYPE";
  line += " " + quoted(source.string()) + " 2>&1";

  FILE* pipe = ::popen(line.c_str(), "r");
  if (pipe == nullptr) throw std::runtime_error("cannot run the compiler: " + line);
  CompileResult result{};
  char piece[4096];
  for (size_t got = 0; (got = std::fread(piece, 1, sizeof piece, pipe)) > 0;)
    result.output.append(piece, got);
  const int status = ::pclose(pipe);
  result.accepted = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  collect_rejections(result.output, command.directory, result.rejections);
  return result;
}

}  // namespace apr_test
