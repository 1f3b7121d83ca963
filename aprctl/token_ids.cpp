#include "aprctl/token_ids.h"

#include <algorithm>
#include <charconv>

#include "core/base/error.h"

namespace apr::ctl {

std::vector<int32_t> parse_ids(const char* command, const std::string& text, uint32_t vocab) {
  std::vector<int32_t> ids;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at < end) {
    if (*at == ',' || *at == ' ' || *at == '\n') {
      ++at;
      continue;
    }
    int32_t id = 0;
    const auto [next, problem] = std::from_chars(at, end, id);
    if (problem != std::errc() || id < 0 || static_cast<uint32_t>(id) >= vocab)
      throw usage_error("aprctl {}: --ids has '{}' where a token id from 0 to {} is expected", command,
                        std::string(at, std::min<size_t>(16, static_cast<size_t>(end - at))), vocab - 1);
    ids.push_back(id);
    at = next;
  }
  if (ids.empty()) throw usage_error("aprctl {}: --ids is empty", command);
  return ids;
}

}  // namespace apr::ctl
