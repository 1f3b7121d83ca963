#include <toml++/toml.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/dispatch/isa.h"
#include "core/dispatch/weight_quant_type.h"
#include "core/profile/profile.h"

namespace apr {

namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 6> kFileKeys = {"summary", "backend", "precise",
                                                       "stamp",   "rules",   "name"};
constexpr std::array<std::string_view, 14> kRuleKeys = {"op",      "qtype",    "tensor", "role", "layout",
                                                        "arch",    "isa",      "m",      "n",    "k",
                                                        "backend", "template", "params", "why"};
constexpr std::array<std::string_view, 5> kStampKeys = {"device", "arch", "software", "kernels", "codecs"};

class Reader {
 public:
  explicit Reader(const std::string& file) : file_(file) {}

  [[noreturn]] void fail(int line, const std::string& message) const {
    throw Error("{}:{}: {}", file_, std::max(line, 1), message);
  }
  static int line(const toml::node& node) { return static_cast<int>(node.source().begin.line); }
  std::string origin(const toml::node& node) const { return fmt::format("{}:{}", file_, line(node)); }

  template <typename Known>
  void only(const toml::table& table, const Known& known, std::string_view where) const {
    for (const auto& [key, node] : table)
      if (std::find(known.begin(), known.end(), key.str()) == known.end())
        fail(static_cast<int>(key.source().begin.line),
             fmt::format("unknown key '{}' in {}; known are {}", printable(key.str()), where, joined(known)));
  }

  std::string text(const toml::node& node, std::string_view key) const {
    if (!node.is_string()) fail(line(node), fmt::format("'{}' must be a string", key));
    if (node.as_string()->get().empty())
      fail(line(node), fmt::format("'{}' is empty; leave it out to match anything", key));
    return node.as_string()->get();
  }
  std::optional<std::string> find_text(const toml::table& table, std::string_view key) const {
    const toml::node* node = table.get(key);
    return node == nullptr ? std::nullopt : std::optional(text(*node, key));
  }
  std::string require_text(const toml::table& table, std::string_view key) const {
    if (const auto found = find_text(table, key)) return *found;
    fail(line(table), fmt::format("'{}' is missing", key));
  }

  int64_t number(const toml::node& node, std::string_view key) const {
    if (!node.is_integer())
      fail(line(node), fmt::format("'{}' must be a whole number or [least, most]", key));
    const int64_t value = node.as_integer()->get();
    if (value < 1 || value > INT64_C(0xffffffff))
      fail(line(node), fmt::format("'{}' has {}; it is 1 to {}", key, value, UINT32_MAX));
    return value;
  }
  // 512, or [least, most].
  RuleRange range(const toml::table& table, std::string_view key) const {
    const toml::node* node = table.get(key);
    if (node == nullptr) return {};
    RuleRange range;
    range.line = line(*node);
    if (const toml::array* pair = node->as_array()) {
      if (pair->size() != 2)
        fail(range.line, fmt::format("'{}' must be a whole number or [least, most]", key));
      range.least = static_cast<uint64_t>(number((*pair)[0], key));
      range.most = static_cast<uint64_t>(number((*pair)[1], key));
    } else {
      range.least = range.most = static_cast<uint64_t>(number(*node, key));
    }
    if (range.least > range.most)
      fail(range.line,
           fmt::format("'{}' = [{}, {}] is empty: least comes first", key, range.least, range.most));
    return range;
  }

 private:
  const std::string& file_;
};

std::string format_name(const Reader& reader, const toml::node& node) {
  std::string text = reader.text(node, "qtype");
  if (const auto type = parse_qtype(text)) return std::string(name(*type));
  if (text.find('.') != std::string::npos) return text;
  std::vector<std::string_view> known;
  for (const WeightQuantType type : well_known_qtypes()) known.push_back(name(type));
  reader.fail(Reader::line(node),
              fmt::format("'{}' is no weight format; known are {}; a plugin's own has a dot", printable(text),
                          joined(known)));
}

std::string isa_name(const Reader& reader, const toml::node& node) {
  std::string text = reader.text(node, "isa");
  std::vector<std::string_view> known;
  for (const apr_isa isa : {APR_ISA_PORTABLE, APR_ISA_AVX2, APR_ISA_AVX512}) {
    if (text == name(isa)) return text;
    known.push_back(name(isa));
  }
  reader.fail(Reader::line(node),
              fmt::format("'{}' is no instruction set; known are {}", printable(text), joined(known)));
}

ProfileRule parse_rule(const Reader& reader, const toml::node& node, const std::string& backend) {
  if (!node.is_table()) reader.fail(Reader::line(node), "a rule is a table: write [[rules]]");
  const toml::table& t = *node.as_table();
  reader.only(t, kRuleKeys, "a rule");
  ProfileRule rule;
  rule.origin = reader.origin(node);
  rule.backend = reader.find_text(t, "backend").value_or(backend);
  rule.op = reader.find_text(t, "op");
  if (const toml::node* qtype = t.get("qtype")) rule.qtype = format_name(reader, *qtype);
  rule.tensor = reader.find_text(t, "tensor");
  rule.role = reader.find_text(t, "role");
  rule.layout = reader.find_text(t, "layout");
  rule.arch = reader.find_text(t, "arch");
  if (const toml::node* isa = t.get("isa")) {
    if (rule.arch)
      reader.fail(Reader::line(*isa),
                  "a rule has 'arch' or 'isa', not both: they are two words for what a device reports");
    rule.arch = isa_name(reader, *isa);
  }
  rule.m = reader.range(t, "m");
  rule.n = reader.range(t, "n");
  rule.k = reader.range(t, "k");
  rule.kernel = reader.find_text(t, "template");
  rule.why = reader.find_text(t, "why").value_or("");
  if (const toml::node* params = t.get("params")) {
    if (!params->is_table()) reader.fail(Reader::line(*params), "'params' must be a table: { rows = 4 }");
    if (!rule.kernel)
      reader.fail(Reader::line(*params), "'params' belong to a kernel: name it with 'template'");
    for (const auto& [key, value] : *params->as_table()) {
      RuleParam param{std::string(key.str()), 0, Reader::line(value)};
      if (value.is_integer())
        param.value = value.as_integer()->get();
      else if (value.is_string())
        param.value = value.as_string()->get();
      else
        reader.fail(param.line,
                    fmt::format("parameter '{}' must be a whole number or a string", printable(param.name)));
      rule.params.push_back(std::move(param));
    }
  }
  if (!rule.kernel && !rule.layout)
    reader.fail(Reader::line(node), "the rule chooses nothing: it needs 'template' or 'layout'");
  return rule;
}

ProfileStamp parse_stamp(const Reader& reader, const toml::node& node) {
  if (!node.is_table()) reader.fail(Reader::line(node), "'stamp' must be a table");
  const toml::table& t = *node.as_table();
  reader.only(t, kStampKeys, "a stamp");
  ProfileStamp stamp;
  stamp.device = reader.require_text(t, "device");
  stamp.arch = reader.require_text(t, "arch");
  stamp.software = reader.require_text(t, "software");
  stamp.kernels = reader.require_text(t, "kernels");
  const toml::node* codecs = t.get("codecs");
  if (codecs == nullptr || !codecs->is_table())
    reader.fail(Reader::line(node), "'codecs' is missing, or no table");
  for (const auto& [key, value] : *codecs->as_table())
    stamp.codecs[std::string(key.str())] = reader.text(value, key.str());
  return stamp;
}

}  // namespace

Profile parse_profile(const std::string& text, const std::string& file) {
  const Reader reader(file);
  toml::table table;
  try {
    table = toml::parse(text, file);
  } catch (const toml::parse_error& error) {
    throw Error("{}:{}: {}", file, error.source().begin.line, error.description());
  }
  reader.only(table, kFileKeys, "a profile");
  Profile profile;
  profile.name = fs::path(file).stem().string();
  profile.file = file;
  if (const auto name = reader.find_text(table, "name"); name && *name != profile.name)
    reader.fail(Reader::line(*table.get("name")),
                fmt::format("the name '{}' differs from the file's", printable(*name)));
  profile.summary = reader.find_text(table, "summary").value_or("");
  profile.backend = reader.find_text(table, "backend").value_or("");
  if (const toml::node* precise = table.get("precise")) {
    if (!precise->is_boolean()) reader.fail(Reader::line(*precise), "'precise' must be true or false");
    profile.precise = precise->as_boolean()->get();
  }
  if (const toml::node* stamp = table.get("stamp")) profile.stamp = parse_stamp(reader, *stamp);
  if (const toml::node* rules = table.get("rules")) {
    if (!rules->is_array()) reader.fail(Reader::line(*rules), "rules are written as [[rules]]");
    for (const toml::node& rule : *rules->as_array())
      profile.rules.push_back(parse_rule(reader, rule, profile.backend));
  }
  return profile;
}

Profile read_profile(const std::string& file) {
  constexpr uintmax_t kMost = 4 << 20;
  std::error_code code;
  const uintmax_t bytes = fs::file_size(file, code);
  if (code) throw Error("profile {}: {}", file, code.message());
  if (bytes > kMost)
    throw Error("profile {}: {} is too large (at most {})", file, human_bytes(bytes), human_bytes(kMost));
  std::ifstream in(file, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  if (!in || !text) throw Error("profile {}: cannot be read", file);
  return parse_profile(text.str(), file);
}

std::string find_profile(const std::string& name, const std::vector<std::string>& folders) {
  if (name.find('/') != std::string::npos || fs::path(name).extension() == ".toml") {
    if (fs::is_regular_file(name)) return name;
    throw usage_error("profile {}: there is no such file", name);
  }
  std::vector<std::string> known;
  for (const std::string& folder : folders) {
    std::error_code code;
    if (const fs::path file = fs::path(folder) / (name + ".toml"); fs::is_regular_file(file, code))
      return file.string();
    for (fs::directory_iterator it(folder, code), end; !code && it != end; it.increment(code))
      if (it->path().extension() == ".toml") known.push_back(it->path().stem().string());
  }
  std::sort(known.begin(), known.end());
  known.erase(std::unique(known.begin(), known.end()), known.end());
  throw usage_error("there is no profile '{}'; known are {} (in {}); a file is named with its path or .toml",
                    printable(name), known.empty() ? "none" : joined(known), joined(folders));
}

std::vector<std::string> differences(const ProfileStamp& wanted, const ProfileStamp& here) {
  std::vector<std::string> list;
  const auto compare = [&](std::string_view what, const std::string& a, const std::string& b) {
    if (a != b) list.push_back(fmt::format("{}: {} instead of {}", what, b, a));
  };
  compare("device", wanted.device, here.device);
  compare("architecture", wanted.arch, here.arch);
  compare("software", wanted.software, here.software);
  if (wanted.kernels != here.kernels) list.emplace_back("kernels: other code");
  for (const auto& [format, hash] : wanted.codecs) {
    const auto found = here.codecs.find(format);
    if (found != here.codecs.end() && found->second != hash)
      list.push_back(fmt::format("format {}: other code", format));
  }
  return list;
}

}  // namespace apr
