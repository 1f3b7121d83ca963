// Unicode normalisation of text before it is cut into words.
#pragma once

#include <string>
#include <string_view>

#include "core/text/vocab.h"

namespace apr {

// text must be valid UTF-8, shorter than 2^30 bytes. Throws apr::Error when memory is short.
std::string normalize(std::string_view text, Normalizer how);

}  // namespace apr
