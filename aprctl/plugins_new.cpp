// `aprctl plugins new`: a project for a weight format of one's own, that builds against the installed headers alone and
// passes its test as it is. Its files are templates in <data>/plugin-template, each with placeholders like @name@.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <system_error>

#include "apr/abi.h"
#include "aprctl/command_line.h"
#include "aprctl/commands.h"
#include "aprctl/installation.h"
#include "aprctl/probe_report.h"
#include "core/base/error.h"
#include "core/base/format.h"
#include "core/plugin/manifest.h"

namespace apr::ctl {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kTemplateEnding = ".in";

bool lower(char c) { return c >= 'a' && c <= 'z'; }

// "acme.int4": two words that begin with a letter. Manifests allow more; a new format needs no more.
void check_name(const std::string& name) {
  const size_t dot = name.find('.');
  const bool two_words = dot != std::string::npos && name.find('.', dot + 1) == std::string::npos &&
                         dot + 1 < name.size() && lower(name[0]) && lower(name[dot + 1]);
  if (!is_plugin_word(name) || !two_words)
    throw usage_error(
        "'{}' is no name for a new format: it is \"vendor.name\", both of a-z 0-9 _ - and beginning with a "
        "letter, {} characters at most",
        printable(name), kMaxName);
}

// "acme.int4-x" to "AcmeInt4X": the codec's type. No C++ keyword begins with a capital.
std::string type_name(const std::string& name) {
  std::string type;
  bool first = true;
  for (const char c : name) {
    const bool word = lower(c) || (c >= '0' && c <= '9');
    if (word) type += first && lower(c) ? static_cast<char>(c - 'a' + 'A') : c;
    first = !word;
  }
  return type;
}

std::string read_text(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(in), {}};
  if (!in) throw Error("{}: {}", path.string(), std::strerror(errno));
  return text;
}

// Every @word@ becomes its value; one that is not known is a fault of the template.
std::string fill(const std::string& text, const std::map<std::string, std::string>& values,
                 const fs::path& path) {
  std::string out;
  for (size_t at = 0;;) {
    const size_t open = text.find('@', at);
    out.append(text, at, open - at);
    if (open == std::string::npos) return out;
    const size_t close = text.find('@', open + 1);
    const std::string word = close == std::string::npos ? "" : text.substr(open + 1, close - open - 1);
    const auto value = values.find(word);
    if (value == values.end())
      throw Error("{}: line {}: '@' is not part of a placeholder", path.string(),
                  1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(open), '\n'));
    out += value->second;
    at = close + 1;
  }
}

// Made beside the folder and renamed: there is a whole project or none.
class NewFolder {
 public:
  explicit NewFolder(fs::path target) : target_(std::move(target)) {
    std::error_code failure;
    if (fs::symlink_status(target_, failure).type() != fs::file_type::not_found &&
        !(fs::is_directory(target_, failure) && fs::is_empty(target_, failure)))
      throw Error("{} is there already and nothing in it was touched; name another with --directory",
                  target_.string());
    if (!target_.parent_path().empty()) fs::create_directories(target_.parent_path(), failure);
    part_ = target_.string() + fmt::format(".part-{}", getpid());
    if (failure || !fs::create_directory(part_, failure)) {
      const std::string why = failure ? failure.message() : "this folder is in the way: " + part_.string();
      part_.clear();
      throw Error("{}: cannot be made: {}", target_.string(), why);
    }
  }
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;
  ~NewFolder() {
    std::error_code ignored;
    if (!part_.empty()) fs::remove_all(part_, ignored);
  }

  void write(const std::string& name, const std::string& text) {
    std::ofstream out(part_ / name, std::ios::binary);
    out << text;
    out.close();
    if (!out) throw Error("{}: {}", (target_ / name).string(), std::strerror(errno));
  }
  void commit() {
    std::error_code failure;
    fs::rename(part_, target_, failure);  // onto an empty folder, too
    if (failure) throw Error("{}: {}", target_.string(), failure.message());
    part_.clear();
  }

 private:
  fs::path target_, part_;
};

std::vector<fs::path> templates() {
  const fs::path folder = data_folder() / "plugin-template";
  std::vector<fs::path> files;
  std::error_code failure;
  for (fs::directory_iterator it(folder, failure), end; !failure && it != end; it.increment(failure))
    if (it->path().extension() == kTemplateEnding) files.push_back(it->path());
  if (failure || files.empty())
    throw Error("{}: the templates of new plugins are missing ({}); install apr again", folder.string(),
                failure ? failure.message() : "no file ends in .in");
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

int plugins_new_main(const Arguments& args) {
  CommandLine line(
      "plugins new",
      "A project for a weight format of your own: codec, quantiser, manifest, test, README. It builds "
      "against the installed headers alone, with Meson or CMake, and passes its test as it is. See "
      "docs/writing-a-quant-plugin.md.",
      "aprctl plugins new acme.int4");
  namespace po = boost::program_options;
  line.options().add_options()("name", po::value<std::string>(), "of the format: vendor.name")(
      "directory,d", po::value<std::string>()->value_name("FOLDER"),
      "where to make the project, a new or empty folder; without it ./NAME")(
      "json", po::bool_switch(), "print JSON: the folder and its files");
  line.positional("name", 1);
  if (!line.parse(args)) return kExitOk;

  const auto name = line.find<std::string>("name");
  if (!name) throw usage_error("aprctl plugins new: name the format: vendor.name");
  check_name(*name);
  std::string file = *name;
  std::replace(file.begin(), file.end(), '.', '-');
  const std::map<std::string, std::string> values = {
      {"name", *name},
      {"file", file},
      {"Type", type_name(*name)},
      {"abi", fmt::format("{}.{}", APR_ABI_MAJOR, APR_ABI_MINOR)}};

  const std::string given = line.find<std::string>("directory").value_or(*name);
  if (given.empty()) throw usage_error("aprctl plugins new: --directory is empty; give a folder");
  fs::path folder = fs::absolute(given).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();  // "here/" is "here"

  NewFolder project(folder);
  std::vector<std::string> written;
  for (const fs::path& path : templates()) {
    written.push_back(path.stem().string());
    project.write(written.back(), fill(read_text(path), values, path));
  }
  project.commit();

  if (line.flag("json")) {
    const nlohmann::ordered_json out = {{"probes", probes_json(probes_in_force())},
                                        {"name", *name},
                                        {"directory", folder.string()},
                                        {"files", written}};
    fmt::print("{}\n", out.dump(2));
    return kExitOk;
  }
  for (const std::string& each : written) fmt::print("{}\n", (folder / each).string());
  fmt::print(
      "\nbuild and test it:\n  cd {}\n  meson setup build\n  meson compile -C build\n  meson test -C build\n",
      folder.string());
  return kExitOk;
}

}  // namespace apr::ctl
