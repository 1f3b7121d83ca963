// For tests of messages: runs a callable that must throw apr::Error and gives its text.
#pragma once

#include <string>
#include <string_view>

#include "core/base/error.h"

namespace apr_test {

// The message; a text that no test looks for when nothing was thrown. Other exceptions pass through.
template <typename F>
std::string error_of(F&& run) {
  try {
    static_cast<void>(run());
  } catch (const apr::Error& error) {
    return error.what();
  }
  return "(no error)";
}

inline bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

}  // namespace apr_test

// Shows the whole message when a part is not in it.
#define CHECK_HAS(message, part)             \
  do {                                       \
    const std::string shown_ = (message);    \
    CAPTURE(shown_);                         \
    CHECK(apr_test::contains(shown_, part)); \
  } while (false)
