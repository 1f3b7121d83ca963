// Lines that a person types. On a terminal they can be edited, and earlier ones of the same run come back with the arrow
// keys, where the program was built with libedit; otherwise, and for files and pipes, they are read as they are.
#pragma once

#include <memory>
#include <optional>
#include <string>

namespace apr::ctl {

class LineInput {
 public:
  static std::unique_ptr<LineInput> open();
  virtual ~LineInput() = default;

  // The next line of standard input, after the prompt on standard error; nothing at the end. Ctrl-C does what it does
  // elsewhere in the program, and leaves the terminal as it was.
  virtual std::optional<std::string> next(const std::string& prompt) = 0;
};

// Null where standard input or standard error is no terminal that lines can be edited on. Only built with libedit.
std::unique_ptr<LineInput> open_line_editor();

}  // namespace apr::ctl
