#include "plugins/backend-cuda/templates.h"

#include <fmt/format.h>

#include <toml++/toml.h>
#include <algorithm>
#include <boost/dll/runtime_symbol_info.hpp>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "plugins/backend-cuda/failure.h"
#include "ptx-templates/args.h"

namespace apr::cuda {

namespace fs = std::filesystem;

const char* to_string(Op op) {
  switch (op) {
    case Op::Embed:
      return "embed";
    case Op::RmsNorm:
      return "rms_norm";
    case Op::Convert:
      return "convert";
    case Op::Linear:
      return "linear";
    case Op::Rope:
      return "rope";
    case Op::RopeKv:
      return "rope_kv";
    case Op::Attention:
      return "attention";
    case Op::Add:
      return "add";
    case Op::Swiglu:
      return "swiglu";
    case Op::Gather:
      return "gather";
    case Op::Argmax:
      return "argmax";
    case Op::TopK:
      return "top_k";
    case Op::ReadBandwidth:
      return "read_bandwidth";
    case Op::WeightRange:
      return "weight_range";
  }
  return "?";
}

const char* to_string(View view) {
  switch (view) {
    case View::None:
      return "none";
    case View::Int:
      return "int";
    case View::Float:
      return "float";
  }
  return "?";
}

namespace {

// The header of one file, with positions for messages.
class Header {
 public:
  Header(const std::string& file, const std::string& text) : file_(file) {
    const size_t open = text.find("/*");
    const size_t close = open == std::string::npos ? open : text.find("*/", open);
    if (close == std::string::npos)
      throw Error(
          "{}: a kernel template begins with a comment of TOML between /* and */, and this file has none",
          file);
    if (text.find_first_not_of(" \t\r\n") != open)
      throw Error("{}:1: a kernel template begins with its comment of TOML; something stands before it",
                  file);
    first_line_ = std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(open), '\n');
    try {
      table_ = toml::parse(std::string_view(text).substr(open + 2, close - open - 2), file);
    } catch (const toml::parse_error& e) {
      throw Error("{}:{}: {}", file, e.source().begin.line + first_line_, e.description());
    }
  }

  const toml::table& table() const { return table_; }

  [[noreturn]] void fail(const toml::node* node, const std::string& message) const {
    const auto line = node == nullptr ? 1 : node->source().begin.line;
    throw Error("{}:{}: {}", file_, line + first_line_, message);
  }

  const toml::node& require(const toml::table& table, const char* key) const {
    const toml::node* node = table.get(key);
    if (node == nullptr) fail(&table, fmt::format("'{}' is missing", key));
    return *node;
  }

  std::string string(const toml::table& table, const char* key) const {
    const toml::node& node = require(table, key);
    if (!node.is_string()) fail(&node, fmt::format("'{}' must be a string", key));
    return node.as_string()->get();
  }

  int64_t integer(const toml::node& node, const char* key) const {
    if (!node.is_integer()) fail(&node, fmt::format("'{}' must be an integer", key));
    return node.as_integer()->get();
  }

  const toml::array& array(const toml::table& table, const char* key) const {
    const toml::node& node = require(table, key);
    if (!node.is_array()) fail(&node, fmt::format("'{}' must be an array", key));
    return *node.as_array();
  }

  std::vector<std::string> strings(const toml::table& table, const char* key) const {
    std::vector<std::string> out;
    for (const toml::node& node : array(table, key)) {
      if (!node.is_string()) fail(&node, fmt::format("'{}' must be an array of strings", key));
      out.push_back(node.as_string()->get());
    }
    return out;
  }

  void only(const toml::table& table, std::initializer_list<std::string_view> known,
            const char* where) const {
    for (const auto& [key, node] : table)
      if (std::find(known.begin(), known.end(), key.str()) == known.end())
        fail(&node, fmt::format("unknown key '{}' in {}; known are {}", key.str(), where, join(known, ", ")));
  }

 private:
  std::string file_;
  toml::table table_;
  int64_t first_line_ = 0;
};

bool is_name(const std::string& text) {
  return !text.empty() &&
         text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == std::string::npos &&
         (text[0] < '0' || text[0] > '9');
}

Op parse_op(const Header& header, const std::string& text) {
  std::vector<const char*> known;
  for (int i = 0; i < kOps; ++i) {
    const Op op = static_cast<Op>(i);
    if (text == to_string(op)) return op;
    known.push_back(to_string(op));
  }
  header.fail(header.table().get("op"),
              fmt::format("unknown op '{}'; known are {}", text, join(known, ", ")));
}

View parse_view(const Header& header, const std::string& text) {
  for (const View view : {View::None, View::Int, View::Float})
    if (text == to_string(view)) return view;
  header.fail(header.table().get("view"), fmt::format("unknown view '{}'; known are none, int, float", text));
}

TemplateParam parse_param(const Header& header, const std::string& name, const toml::node& node) {
  if (!is_name(name))
    header.fail(&node, fmt::format("parameter '{}': a name is lower case letters, digits and _", name));
  if (!node.is_table())
    header.fail(&node, fmt::format("parameter '{}' must be {{ values, default, meaning }}", name));
  const toml::table& table = *node.as_table();
  header.only(table, {"values", "default", "meaning"}, "a parameter");
  TemplateParam param{
      name, {}, header.integer(header.require(table, "default"), "default"), header.string(table, "meaning")};
  for (const toml::node& value : header.array(table, "values"))
    param.values.push_back(header.integer(value, "values"));
  if (std::find(param.values.begin(), param.values.end(), param.preset) == param.values.end())
    header.fail(&node,
                fmt::format("parameter '{}': the default {} is not among its values", name, param.preset));
  return param;
}

TemplatePreset parse_preset(const Header& header, const toml::node& node,
                            const std::vector<TemplateParam>& params) {
  if (!node.is_table()) header.fail(&node, "a preset is a table");
  const toml::table& table = *node.as_table();
  header.only(table, {"m", "k", "n", "segments", "bits", "capability", "params", "why"}, "a preset");
  TemplatePreset preset{{}, {}, header.string(table, "why")};
  for (const char* what : {"m", "k", "n", "segments", "bits", "capability"}) {
    if (!table.contains(what)) continue;
    const toml::array& range = header.array(table, what);
    if (range.size() != 2) header.fail(&range, fmt::format("'{}' must be [least, most]", what));
    preset.ranges.push_back({what, header.integer(range[0], what), header.integer(range[1], what)});
  }
  const toml::node& values = header.require(table, "params");
  if (!values.is_table()) header.fail(&values, "'params' must be a table");
  for (const auto& [key, value] : *values.as_table()) {
    const std::string name(key.str());
    const auto param =
        std::find_if(params.begin(), params.end(), [&](const TemplateParam& p) { return p.name == name; });
    if (param == params.end())
      header.fail(&value, fmt::format("'{}' is no parameter of this template", name));
    const int64_t v = header.integer(value, name.c_str());
    if (std::find(param->values.begin(), param->values.end(), v) == param->values.end())
      header.fail(&value, fmt::format("{} is not among the values of '{}'", v, name));
    preset.params.emplace_back(name, v);
  }
  return preset;
}

std::vector<std::string> find_placeholders(const std::string& file, const std::string& text) {
  std::vector<std::string> names;
  for (size_t at = text.find("{{"); at != std::string::npos; at = text.find("{{", at + 2)) {
    const size_t end = text.find("}}", at);
    const std::string name = end == std::string::npos ? "" : text.substr(at + 2, end - at - 2);
    if (name.empty() ||
        name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") !=
            std::string::npos)
      throw Error("{}:{}: a placeholder is {{{{name}}}}", file,
                  1 + std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(at), '\n'));
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  return names;
}

std::string read_text(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  if (!in || !text) throw Error("{}: cannot be read", path.string());
  return std::move(text).str();
}

}  // namespace

Template parse_template(const std::string& file, const std::string& text) {
  const Header header(file, text);
  const toml::table& t = header.table();
  header.only(t,
              {"name", "op", "view", "m", "layouts", "arch", "features", "summary", "params", "presets",
               "formats", "epilogues", "segments", "norm"},
              "a template");
  Template out;
  out.file = file;
  out.text = text;
  out.literal = fs::path(file).extension() == ".ptx";
  out.name = header.string(t, "name");
  if (out.name != fs::path(file).stem().string())
    header.fail(t.get("name"), fmt::format("the name '{}' differs from the file's", out.name));
  out.op = parse_op(header, header.string(t, "op"));
  out.view = parse_view(header, header.string(t, "view"));
  const toml::array& m = header.array(t, "m");
  if (m.size() != 2) header.fail(&m, "'m' must be [least, most] tokens, most = 0 for unbounded");
  const int64_t m_min = header.integer(m[0], "m"), m_max = header.integer(m[1], "m");
  if (m_min < 1 || (m_max != 0 && m_max < m_min) || m_max > 1 << 20)
    header.fail(&m, "'m' must be [least, most] with 1 <= least <= most, or most = 0 for unbounded");
  out.m_min = static_cast<uint32_t>(m_min);
  out.m_max = static_cast<uint32_t>(m_max);
  out.layouts = header.strings(t, "layouts");
  if (out.view != View::None && out.layouts.empty())
    header.fail(t.get("layouts"), "a kernel that reads weights names the layouts that it takes");
  out.arch = static_cast<int>(header.integer(header.require(t, "arch"), "arch"));
  if (out.arch < 50 || out.arch > 200)
    header.fail(t.get("arch"), "'arch' is a compute capability such as 80 or 90");
  out.arch_specific = false;
  for (const std::string& feature : header.strings(t, "features")) {
    if (feature != "a")
      header.fail(t.get("features"), fmt::format("unknown feature '{}'; known is a", feature));
    out.arch_specific = true;
  }
  out.summary = header.string(t, "summary");
  if (const toml::node* params = t.get("params"); params != nullptr) {
    if (!params->is_table()) header.fail(params, "'params' must be a table");
    for (const auto& [key, node] : *params->as_table())
      out.params.push_back(parse_param(header, std::string(key.str()), node));
  }
  if (const toml::node* presets = t.get("presets"); presets != nullptr) {
    if (!presets->is_array()) header.fail(presets, "presets are written as [[presets]]");
    for (const toml::node& node : *presets->as_array())
      out.presets.push_back(parse_preset(header, node, out.params));
  }
  if (t.contains("formats")) out.formats = header.strings(t, "formats");
  if (t.contains("epilogues")) out.epilogues = header.strings(t, "epilogues");
  for (const std::string& epilogue : out.epilogues)
    if (epilogue != "none" && epilogue != "residual" && epilogue != "swiglu")
      header.fail(t.get("epilogues"),
                  fmt::format("unknown epilogue '{}'; known are none, residual, swiglu", epilogue));
  const int64_t segments =
      t.contains("segments") ? header.integer(*t.get("segments"), "segments") : kMaxSegments;
  if (segments < 1 || segments > kMaxSegments)
    header.fail(t.get("segments"), fmt::format("'segments' is 1 to {}", kMaxSegments));
  out.max_segments = static_cast<uint32_t>(segments);
  if (const toml::node* norm = t.get("norm"); norm != nullptr && !norm->is_boolean())
    header.fail(norm, "'norm' must be true or false");
  out.norm = !t.contains("norm") || t.get("norm")->as_boolean()->get();
  if (out.literal && out.view != View::None && out.formats.empty())
    header.fail(nullptr,
                "'formats' is missing: literal PTX reads the bytes of certain formats, so it names them");
  if (out.literal) out.placeholders = find_placeholders(file, text);
  return out;
}

Registry read_registry(const std::string& folder) {
  Registry registry;
  registry.folder = folder;
  std::error_code code;
  std::vector<fs::path> files;
  for (fs::directory_iterator it(folder, code), end; !code && it != end; it.increment(code))
    files.push_back(it->path());
  if (code) throw Error("kernel templates {}: {}", folder, code.message());
  std::sort(files.begin(), files.end());
  for (const fs::path& file : files) {
    const std::string extension = file.extension().string();
    if (extension == ".h") registry.headers.push_back({file.filename().string(), read_text(file)});
    if (extension == ".cu" || extension == ".ptx")
      registry.templates.push_back(parse_template(file.string(), read_text(file)));
  }
  if (registry.templates.empty()) throw Error("kernel templates {}: there is no .cu or .ptx file", folder);
  for (size_t i = 1; i < registry.templates.size(); ++i)
    if (registry.templates[i].name == registry.templates[i - 1].name)
      throw Error("kernel templates {}: two files have the name {}", folder, registry.templates[i].name);
  return registry;
}

std::string find_template_folder(const std::string& setting) {
  if (!setting.empty()) {
    const fs::path folder = fs::path(setting) / "ptx-templates";
    if (!fs::is_directory(folder))
      throw Error("setting data_dir={}: there is no folder {}", setting, folder.string());
    return folder.string();
  }
  boost::dll::fs::error_code code;
  const fs::path library = boost::dll::this_line_location(code);
  if (code)
    throw Error("kernel templates: the backend's own file cannot be found ({}); set data_dir",
                code.message());
  const fs::path here = library.parent_path();
  std::vector<std::string> searched;
  // Beside the plugin; <bundle>/plugins/backend-cuda and <build>/plugins/backend-cuda; <prefix>/lib/apr/plugins/backend-cuda.
  for (const char* relative :
       {"ptx-templates", "../../ptx-templates", "../../../../share/apr/ptx-templates"}) {
    const fs::path folder = (here / relative).lexically_normal();
    if (fs::is_directory(folder)) return folder.string();
    searched.push_back(folder.string());
  }
  throw Error("kernel templates: no ptx-templates folder in {}; reinstall, or set data_dir",
              join(searched, ", "));
}

}  // namespace apr::cuda
