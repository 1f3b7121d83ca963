// Text that a command is given: -p TEXT, -f FILE, or standard input.
#pragma once

#include <optional>
#include <string>

#include "aprctl/command_line.h"

namespace apr::ctl {

// The contents of a file; "-" is standard input. Throws on one that cannot be read.
std::string read_text(const std::string& file);

struct TextInput {
  static void add(CommandLine& line);
  // nullopt when neither option is given and standard input is a terminal. Throws when both are given, or on a file that
  // cannot be read. "-f -" is standard input.
  static std::optional<std::string> read(const CommandLine& line);
  // The same, to be continued: the line feed that ends a file or a pipe's last line is not part of the text.
  static std::optional<std::string> read_prompt(const CommandLine& line);
};

}  // namespace apr::ctl
