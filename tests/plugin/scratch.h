// Folders for plugin tests: made under the temporary folder with safe modes whatever the umask, removed at
// the end.
#pragma once

#include <sys/stat.h>
#include <unistd.h>

#include <boost/dll/runtime_symbol_info.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "core/base/error.h"

namespace apr::test {

namespace fs = std::filesystem;

class Scratch {
 public:
  Scratch() {
    std::string name = (fs::temp_directory_path() / "apr-plugin-test-XXXXXX").native();
    if (!mkdtemp(name.data())) throw std::runtime_error("no temporary folder");
    path_ = fs::canonical(name);
    chmod(path_.c_str(), 0755);
  }
  ~Scratch() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }

  fs::path folder(const fs::path& relative) const {
    fs::path made = path_;
    for (const fs::path& part : relative) {
      made /= part;
      fs::create_directory(made);
      chmod(made.c_str(), 0755);
    }
    return made;
  }
  fs::path file(const fs::path& relative, const std::string& text) const {
    folder(relative.parent_path());
    const fs::path path = path_ / relative;
    std::ofstream(path) << text;
    chmod(path.c_str(), 0644);
    return path;
  }

 private:
  fs::path path_;
};

// The sample library of a variant, beside this test's executable.
inline fs::path sample_library(const std::string& variant) {
  return boost::dll::program_location().parent_path() / ("libsample_" + variant + ".so");
}

struct ManifestText {
  std::string name = "sample";
  std::string kind = "quant";
  std::string abi = "1.0";
  std::string version = "1.2.3";
  std::string provides = R"(["sample.f32"])";
  std::string file = "libsample.so";
  std::string more = "";

  std::string text() const {
    return "name = \"" + name + "\"\nkind = \"" + kind + "\"\nabi = \"" + abi + "\"\nversion = \"" + version +
           "\"\nprovides = " + provides + "\nfile = \"" + file + "\"\n" + more;
  }
};

// A plugin folder with a sample library under the name that the manifest has by default. Returns the folder.
inline fs::path install(const Scratch& scratch, const fs::path& folder, const std::string& variant,
                        const ManifestText& manifest = {}) {
  scratch.file(folder / "plugin.toml", manifest.text());
  const fs::path library = scratch.path() / folder / "libsample.so";
  fs::copy_file(sample_library(variant), library, fs::copy_options::overwrite_existing);
  chmod(library.c_str(), 0755);
  return scratch.path() / folder;
}

// The message of the apr::Error that the call throws; "" when it throws none.
inline std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

inline bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace apr::test
