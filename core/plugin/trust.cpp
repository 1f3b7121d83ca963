#include "core/plugin/trust.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace apr {

std::optional<std::string> distrust(const std::filesystem::path& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return fmt::format("{}: {}", path.native(), std::strerror(errno));
  if (info.st_mode & (S_IWGRP | S_IWOTH)) {
    return fmt::format(
        "{} can be written by {} (mode {:04o}), who could make this program run their code; "
        "`chmod go-w {}` if you trust what is in it",
        path.native(), info.st_mode & S_IWOTH ? "anybody" : "its group",
        static_cast<unsigned>(info.st_mode & 07777), path.native());
  }
  if (info.st_uid != 0 && info.st_uid != geteuid()) {
    return fmt::format(
        "{} belongs to user id {}, who is neither root nor you (user id {}); copy it to a folder of your "
        "own if you trust it",
        path.native(), info.st_uid, geteuid());
  }
  return std::nullopt;
}

}  // namespace apr
