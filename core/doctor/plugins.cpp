#include <fmt/format.h>

#include <map>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/doctor/doctor.h"

namespace apr {

const char* to_string(HealthLevel level) {
  switch (level) {
    case HealthLevel::Good:
      return "ok";
    case HealthLevel::Absent:
      return "absent";
    case HealthLevel::Problem:
      return "problem";
  }
  return "?";
}

void examine_plugins(const DoctorRequest& request, const HealthFn& tell) {
  Catalog& catalog = *request.catalog;
  std::string searched;
  for (const SearchPath& path : catalog.searched())
    if (path.exists)
      searched += fmt::format("{}{} ({})", searched.empty() ? "" : "\n", path.path.native(), path.origin);
  if (searched.empty())
    tell({"plugins", "folders", HealthLevel::Problem, "none of the folders for plugins exists",
          "install or bundle apr as one folder, or name a folder with --plugin-path", true});
  else
    tell({"plugins", "folders", HealthLevel::Good, searched, ""});
  for (const RefusedPlugin& refused : catalog.refused())
    tell({"plugins", "refused", HealthLevel::Problem, printable(refused.reason, kLongPath),
          fmt::format("mend or remove {}", printable(refused.path.native(), kLongPath))});

  std::map<std::string, std::vector<std::string>> providers;
  size_t opened = 0, formats = 0;
  for (size_t i = 0; i < catalog.plugins().size(); ++i) {
    const Manifest manifest = catalog.plugins()[i].manifest;
    for (const std::string& name : manifest.provides) providers[name].push_back(manifest.library.native());
    try {
      formats += catalog.open(i).n_formats;
      ++opened;
    } catch (const Error& error) {
      tell({"plugins", manifest.name, HealthLevel::Problem, printable(error.what(), kLongPath),
            fmt::format("rebuild or remove {}; `aprctl plugins check` tells more", manifest.library.native()),
            manifest.provides_name(request.reference)});
    }
  }
  for (const auto& [name, libraries] : providers)
    if (libraries.size() > 1)
      tell({"plugins", name, HealthLevel::Problem,
            fmt::format("{} plugins provide it, so that none is used:\n{}", libraries.size(),
                        joined(libraries, "\n")),
            "remove all but one", name == request.reference});
  if (opened > 0)
    tell({"plugins", "libraries", HealthLevel::Good,
          fmt::format("{} open, with {} weight formats", opened, formats), ""});
}

}  // namespace apr
