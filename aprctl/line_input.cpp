#include "aprctl/line_input.h"

#include <fmt/format.h>

#include <cstdio>
#include <iostream>

namespace apr::ctl {
namespace {

class PlainLines final : public LineInput {
 public:
  std::optional<std::string> next(const std::string& prompt) override {
    fmt::print(stderr, "{}", prompt);
    std::string line;
    if (!std::getline(std::cin, line)) return std::nullopt;
    return line;
  }
};

}  // namespace

std::unique_ptr<LineInput> LineInput::open() {
#ifdef APR_HAS_LIBEDIT
  if (auto editor = open_line_editor()) return editor;
#endif
  return std::make_unique<PlainLines>();
}

}  // namespace apr::ctl
