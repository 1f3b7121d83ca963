#include "core/model/strict_json.h"

#include <unordered_set>
#include <vector>

#include "core/base/error.h"
#include "core/base/format.h"

namespace apr {

using nlohmann::json;

json parse_json_object(std::span<const std::byte> text, const std::string& origin) {
  constexpr int kMaxDepth = 256;  // the parser has its stack, but values are freed by recursion
  std::vector<std::unordered_set<std::string>> open;  // keys of every object that is not closed yet
  const auto watch = [&](int depth, json::parse_event_t event, json& value) {
    if (depth > kMaxDepth)
      throw Error("{}: objects and arrays in it are nested more than {} deep", origin, kMaxDepth);
    if (event == json::parse_event_t::object_start) {
      open.emplace_back();
    } else if (event == json::parse_event_t::object_end) {
      open.pop_back();
    } else if (event == json::parse_event_t::key) {
      const auto& key = value.get_ref<const std::string&>();
      if (!open.back().insert(key).second)
        throw Error("{}: '{}' is listed twice in one object", origin, printable(key));
    }
    return true;
  };
  const char* const begin = reinterpret_cast<const char*>(text.data());
  try {
    json parsed = json::parse(begin, begin + text.size(), watch);
    if (!parsed.is_object()) throw Error("{}: it must hold one JSON object", origin);
    return parsed;
  } catch (const json::exception& e) {
    throw Error("{}: no valid JSON, so the file is damaged or another: {}", origin, printable(e.what(), 256));
  }
}

}  // namespace apr
