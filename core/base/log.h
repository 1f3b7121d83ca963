// Messages for people, on stderr only: stdout belongs to a command's result. One line a message, with its
// level first. spdlog does the work behind log.cpp, so that no other file pays for its headers.
#pragma once

#include <fmt/format.h>

#include <string_view>
#include <utility>

namespace apr {

enum class LogLevel { Debug, Info, Warning, Error, Off };

// Messages below this level are dropped; Info until it is set. Any thread, any time.
void set_log_level(LogLevel level);
LogLevel log_level();

// Prints the text as it is. Safe from several threads: lines never mix.
void log_message(LogLevel level, std::string_view text);

// Arguments are formatted only when the message will be printed.
template <typename... Args>
void log_debug(fmt::format_string<Args...> text, Args&&... args) {
  if (log_level() <= LogLevel::Debug)
    log_message(LogLevel::Debug, fmt::format(text, std::forward<Args>(args)...));
}
template <typename... Args>
void log_info(fmt::format_string<Args...> text, Args&&... args) {
  if (log_level() <= LogLevel::Info)
    log_message(LogLevel::Info, fmt::format(text, std::forward<Args>(args)...));
}
template <typename... Args>
void log_warning(fmt::format_string<Args...> text, Args&&... args) {
  if (log_level() <= LogLevel::Warning)
    log_message(LogLevel::Warning, fmt::format(text, std::forward<Args>(args)...));
}
template <typename... Args>
void log_error(fmt::format_string<Args...> text, Args&&... args) {
  if (log_level() <= LogLevel::Error)
    log_message(LogLevel::Error, fmt::format(text, std::forward<Args>(args)...));
}

}  // namespace apr
