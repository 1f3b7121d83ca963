// Token ids as a person writes them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace apr::ctl {

// "1,300,301": separated by commas or blanks. Throws a usage error of the command for anything else, for ids
// outside [0, vocab), and for none at all.
std::vector<int32_t> parse_ids(const char* command, const std::string& text, uint32_t vocab);

}  // namespace apr::ctl
