#include "aprctl/installation.h"

#include <algorithm>
#include <vector>

#include "core/base/error.h"

namespace apr::ctl {

namespace fs = std::filesystem;

fs::path executable_path() { return fs::read_symlink("/proc/self/exe"); }

fs::path data_folder() {
  const fs::path folder = executable_path().parent_path();
  const fs::path installed = folder / ".." / "share" / "apr", built = folder / "..";
  for (const fs::path& candidate : {installed, built}) {
    if (fs::is_directory(candidate / "models")) return fs::canonical(candidate);
  }
  throw Error("the program's data is missing: no models/ in {} or {}; install or bundle apr as one folder",
              installed.lexically_normal().string(), built.lexically_normal().string());
}

std::string shipped_model() {
  const fs::path folder = data_folder() / "models";
  std::vector<std::string> found;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".gguf") found.push_back(entry.path().string());
  }
  if (found.empty())
    throw Error("{}: no model ships with this installation; name one with --model", folder.string());
  return *std::min_element(found.begin(), found.end());
}

}  // namespace apr::ctl
