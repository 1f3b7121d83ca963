#include "core/plugin/manifest.h"

#include <toml++/toml.h>
#include <algorithm>
#include <array>
#include <charconv>
#include <span>

#include "core/base/error.h"
#include "core/base/format.h"

namespace apr {

namespace {

constexpr uintmax_t kMaxManifestBytes =
    64 << 10;  // a manifest is some lines; a device or a log file is refused early
constexpr size_t kMaxProvides = 256;

// The table of a manifest, with the file's name for errors.
class Reader {
 public:
  Reader(const toml::table& table, const std::filesystem::path& path) : table_(table), path_(path) {}

  [[noreturn]] void fail(const toml::source_region& where, const std::string& what) const {
    throw Error("{}:{}: {}", path_.native(), where.begin.line, what);
  }

  const toml::node& require(std::string_view key) const {
    if (const toml::node* node = table_.get(key)) return *node;
    throw Error("{}: key `{}` is missing; a manifest has name, kind, abi, version, provides and file",
                path_.native(), key);
  }

  std::string string(std::string_view key) const {
    const toml::node& node = require(key);
    const auto* value = node.as_string();
    if (!value) fail(node.source(), fmt::format("`{}` must be a string, like {} = \"...\"", key, key));
    if (value->get().empty()) fail(node.source(), fmt::format("`{}` is empty", key));
    return value->get();
  }

  std::string word(std::string_view key) const {
    std::string text = string(key);
    check_word(key, text, require(key).source());
    return text;
  }

  std::vector<std::string> words(std::string_view key) const {
    const toml::node& node = require(key);
    const toml::array* array = node.as_array();
    if (!array)
      fail(node.source(), fmt::format("`{}` must be a list of strings, like {} = [\"...\"]", key, key));
    if (array->empty() || array->size() > kMaxProvides) {
      fail(node.source(),
           fmt::format("`{}` has {} names; 1 to {} are allowed", key, array->size(), kMaxProvides));
    }
    std::vector<std::string> result;
    for (const toml::node& item : *array) {
      const auto* value = item.as_string();
      if (!value) fail(item.source(), fmt::format("`{}` must hold strings only", key));
      check_word(key, value->get(), item.source());
      if (std::find(result.begin(), result.end(), value->get()) != result.end()) {
        fail(item.source(), fmt::format("`{}` lists \"{}\" twice", key, value->get()));
      }
      result.push_back(value->get());
    }
    return result;
  }

  void refuse_unknown_keys(std::span<const std::string_view> known) const {
    for (const auto& [key, node] : table_) {
      if (std::find(known.begin(), known.end(), key.str()) == known.end()) {
        fail(key.source(), fmt::format("unknown key `{}`; a manifest has {}", printable(key.str()),
                                       fmt::join(known, ", ")));
      }
    }
  }

 private:
  void check_word(std::string_view key, const std::string& text, const toml::source_region& where) const {
    if (is_plugin_word(text)) return;
    fail(where,
         fmt::format("`{}`: \"{}\" is no name; use 1 to {} of a-z 0-9 _ - and single dots between them", key,
                     printable(text), kMaxName));
  }

  const toml::table& table_;
  const std::filesystem::path& path_;
};

// "1.0" -> 1, 0
bool parse_abi(std::string_view text, uint32_t& major, uint32_t& minor) {
  const char* const end = text.data() + text.size();
  const auto first = std::from_chars(text.data(), end, major);
  if (first.ec != std::errc() || first.ptr == end || *first.ptr != '.') return false;
  const auto second = std::from_chars(first.ptr + 1, end, minor);
  return second.ec == std::errc() && second.ptr == end;
}

toml::table parse(const std::filesystem::path& path) {
  std::error_code failure;
  const uintmax_t bytes = std::filesystem::file_size(path, failure);
  if (failure) throw Error("{}: cannot be read: {}", path.native(), failure.message());
  if (bytes > kMaxManifestBytes) {
    throw Error("{}: {} is too large for a manifest (at most {})", path.native(), human_bytes(bytes),
                human_bytes(kMaxManifestBytes));
  }
  try {
    return toml::parse_file(path.native());
  } catch (const toml::parse_error& error) {
    throw Error("{}:{}: {}", path.native(), error.source().begin.line, error.description());
  }
}

}  // namespace

std::string_view name(PluginKind kind) {
  switch (kind) {
    case PluginKind::Quant:
      return "quant";
    case PluginKind::Backend:
      return "backend";
  }
  throw Error("internal error: {} is no kind of plugin", static_cast<int>(kind));
}

bool Manifest::provides_name(std::string_view wanted) const {
  return std::find(provides.begin(), provides.end(), wanted) != provides.end();
}

bool is_plugin_word(std::string_view text) {
  if (text.empty() || text.size() > kMaxName || text.front() == '.' || text.back() == '.') return false;
  if (text.find("..") != std::string_view::npos) return false;
  return std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
  });
}

Manifest read_manifest(const std::filesystem::path& given) {
  const std::filesystem::path path = std::filesystem::absolute(given).lexically_normal();
  const toml::table table = parse(path);
  const Reader reader(table, path);
  constexpr std::array<std::string_view, 6> kKeys = {"name", "kind", "abi", "version", "provides", "file"};
  reader.refuse_unknown_keys(kKeys);

  Manifest manifest;
  manifest.path = path;
  manifest.name = reader.word("name");
  const std::string kind = reader.string("kind");
  if (kind == name(PluginKind::Quant)) {
    manifest.kind = PluginKind::Quant;
  } else if (kind == name(PluginKind::Backend)) {
    manifest.kind = PluginKind::Backend;
  } else {
    reader.fail(reader.require("kind").source(),
                fmt::format("kind \"{}\" is unknown; it is \"quant\" or \"backend\"", printable(kind)));
  }
  const std::string abi = reader.string("abi");
  if (!parse_abi(abi, manifest.abi_major, manifest.abi_minor)) {
    reader.fail(reader.require("abi").source(),
                fmt::format("abi \"{}\" is no version; write it as \"1.0\"", printable(abi)));
  }
  manifest.version = reader.string("version");
  manifest.provides = reader.words("provides");
  const std::string file = reader.string("file");
  if (file.find('/') != std::string::npos || file == "." || file == ".." ||
      file.find('\0') != std::string::npos) {
    reader.fail(
        reader.require("file").source(),
        fmt::format("file \"{}\" must be the name of a file in the manifest's own folder", printable(file)));
  }
  manifest.library = path.parent_path() / file;
  return manifest;
}

}  // namespace apr
