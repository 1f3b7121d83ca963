// The one exception type of core/ and aprctl. A message says what was wrong, where (file, tensor, line, byte)
// and what to do about it. The kind decides the program's exit code; nothing here crosses the plugin ABI.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace apr {

enum class ErrorKind {
  Failure,  // exit 1: the input, the machine or the model is at fault
  Usage,    // exit 2: the command line or the environment is at fault
  Gate,     // exit 4: a gate ran and said no
};

class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, ErrorKind kind = ErrorKind::Failure)
      : std::runtime_error(message), kind_(kind) {}

  template <typename First, typename... Args>
  Error(fmt::format_string<First, Args...> text, First&& first, Args&&... args)
      : std::runtime_error(fmt::format(text, std::forward<First>(first), std::forward<Args>(args)...)),
        kind_(ErrorKind::Failure) {}

  ErrorKind kind() const noexcept { return kind_; }

 private:
  ErrorKind kind_;
};

template <typename... Args>
Error usage_error(fmt::format_string<Args...> text, Args&&... args) {
  return Error(fmt::format(text, std::forward<Args>(args)...), ErrorKind::Usage);
}

}  // namespace apr
