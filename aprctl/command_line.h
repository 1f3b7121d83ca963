// The command line of one command, over Boost.Program_options: every command has --help with an example, refuses what it
// does not know, and exits with 2 when it was called wrongly.
#pragma once

#include <boost/program_options.hpp>

#include <optional>
#include <string>
#include <vector>

namespace apr::ctl {

enum ExitCode : int { kExitOk = 0, kExitError = 1, kExitUsage = 2, kExitGate = 4 };

class CommandLine {
 public:
  // name: "run". --help shows the summary, reflowed (core/base/wrap.h), and the example, a line for each call.
  CommandLine(std::string name, std::string summary, std::string example);

  boost::program_options::options_description& options() { return options_; }
  // Lets the value of an option be given without its name; count -1 = any number.
  void positional(const char* option, int count) { positional_.add(option, count); }

  // False when --help was asked for and printed. Throws a usage Error.
  bool parse(const std::vector<std::string>& args);

  bool has(const char* option) const { return values_.count(option) != 0; }
  // The value of an option that has a default or was given.
  template <typename T>
  const T& get(const char* option) const {
    return values_[option].as<T>();
  }
  template <typename T>
  std::optional<T> find(const char* option) const {
    if (!has(option)) return std::nullopt;
    return values_[option].as<T>();
  }
  bool flag(const char* option) const { return get<bool>(option); }

 private:
  std::string name_, summary_, example_;
  boost::program_options::options_description options_;
  boost::program_options::positional_options_description positional_;
  boost::program_options::variables_map values_;
};

}  // namespace apr::ctl
