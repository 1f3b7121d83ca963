#include "core/text/space_mark.h"

namespace apr {

bool space_after_another_character(std::string_view token) {
  for (size_t at = token.find(kSpaceMark); at != std::string_view::npos;
       at = token.find(kSpaceMark, at + kSpaceMark.size())) {
    if (at > 0 && !token.substr(0, at).ends_with(kSpaceMark)) return true;
  }
  return false;
}

}  // namespace apr
