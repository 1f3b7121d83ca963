// JSON from files of others.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <span>
#include <string>

namespace apr {

// Throws apr::Error that names origin and the place: no valid JSON, anything but an object at the top, or a key twice
// in one object, of which every reader would take another one without a word.
nlohmann::json parse_json_object(std::span<const std::byte> text, const std::string& origin);

}  // namespace apr
