// Failures of this backend: an apr::Error that knows which apr_status it becomes at the waist.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "apr/abi.h"
#include "core/base/error.h"

namespace apr::cuda {

class Failure : public Error {
 public:
  Failure(apr_status status, const std::string& message) : Error(message), status_(status) {}
  apr_status status() const noexcept { return status_; }

 private:
  apr_status status_;
};

template <typename... Args>
Failure failure(apr_status status, fmt::format_string<Args...> text, Args&&... args) {
  return Failure(status, fmt::format(text, std::forward<Args>(args)...));
}

// Items of a message. (fmt::join makes g++ 12 report fmt's own headers under -Werror.)
template <typename Items>
std::string join(const Items& items, const char* between) {
  std::string text;
  for (const auto& item : items) {
    if (!text.empty()) text += between;
    text += item;
  }
  return text;
}

}  // namespace apr::cuda
