#include "aprctl/token_ids.h"

#include <algorithm>
#include <charconv>
#include <string_view>

#include "core/base/error.h"
#include "core/base/format.h"

namespace apr::ctl {

std::vector<int32_t> parse_ids(const char* command, const std::string& text, uint32_t vocab) {
  std::vector<int32_t> ids;
  const char* at = text.data();
  const char* const end = at + text.size();
  const auto skip = [&](std::string_view these) {
    while (at < end && these.find(*at) != std::string_view::npos) ++at;
  };
  // Commas, or white space, or both: "1,300, 301", or a file's lines. An id that is missing between two commas is no id.
  constexpr std::string_view kSpace = " \t\r\n";
  for (skip(kSpace); at < end;) {
    int32_t id = 0;
    const auto [next, problem] = std::from_chars(at, end, id);
    if (problem != std::errc() || id < 0 || static_cast<uint32_t>(id) >= vocab ||
        (next < end && *next != ',' && kSpace.find(*next) == std::string_view::npos))
      throw usage_error("aprctl {}: --ids has '{}' where a token id from 0 to {} is expected", command,
                        printable({at, std::min<size_t>(16, static_cast<size_t>(end - at))}), vocab - 1);
    ids.push_back(id);
    at = next;
    skip(kSpace);
    if (at < end && *at == ',') ++at;
    skip(kSpace);
  }
  if (ids.empty()) throw usage_error("aprctl {}: --ids is empty", command);
  return ids;
}

}  // namespace apr::ctl
