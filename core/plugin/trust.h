// Who may have written a file that is about to be loaded into this process.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace apr {

// Why the file or folder must not be trusted: group or others can write it, or it belongs to someone who is
// neither root nor the user of this process. nullopt: it can be trusted. Links are followed. Only mode and
// owner are looked at, not access(2), so that root gets the same answer as everybody. Parent folders are not
// looked at: whoever can swap a folder for another one still cannot make one that belongs to root or to the
// user.
std::optional<std::string> distrust(const std::filesystem::path& path);

}  // namespace apr
