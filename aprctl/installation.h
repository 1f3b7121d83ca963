// Where the program's own data lies, found relative to the executable: an installed prefix or bundle has
// <exe>/../share/apr/{models,profiles,ptx-templates,plugin-template}, a build folder has <exe>/../{models,...}.
#pragma once

#include <filesystem>
#include <string>

namespace apr::ctl {

std::filesystem::path executable_path();
// The folder that holds models/ and the rest; throws apr::Error that names the folders looked at.
std::filesystem::path data_folder();
// The model that ships with the program.
std::string shipped_model();

}  // namespace apr::ctl
