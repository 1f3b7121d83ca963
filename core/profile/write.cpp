#include "core/base/format.h"
#include "core/profile/profile.h"

namespace apr {

namespace {

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\')
      out += fmt::format("\\{}", c);
    else if (byte < 0x20 || byte == 0x7f)
      out += fmt::format("\\u{:04x}", byte);
    else
      out += c;
  }
  return out + "\"";
}

void text_key(std::string& out, const char* key, const std::optional<std::string>& value) {
  if (value) out += fmt::format("{} = {}\n", key, quoted(*value));
}

void range_key(std::string& out, const char* key, const RuleRange& range) {
  if (range.least == 0 && range.most == UINT64_MAX) return;
  if (range.least == range.most)
    out += fmt::format("{} = {}\n", key, range.least);
  else
    out += fmt::format("{} = [{}, {}]\n", key, range.least, range.most);
}

}  // namespace

std::string to_toml(const Profile& profile, const std::vector<std::string>& comments) {
  std::string out;
  for (const std::string& line : comments) out += line.empty() ? "#\n" : fmt::format("# {}\n", line);
  if (!profile.summary.empty()) out += fmt::format("summary = {}\n", quoted(profile.summary));
  if (!profile.backend.empty()) out += fmt::format("backend = {}\n", quoted(profile.backend));
  if (profile.precise) out += "precise = true\n";
  if (profile.stamp) {
    const ProfileStamp& s = *profile.stamp;
    out += fmt::format("\n[stamp]\ndevice = {}\narch = {}\nsoftware = {}\nkernels = {}\n\n[stamp.codecs]\n",
                       quoted(s.device), quoted(s.arch), quoted(s.software), quoted(s.kernels));
    for (const auto& [format, hash] : s.codecs) out += fmt::format("{} = {}\n", quoted(format), quoted(hash));
  }
  for (const ProfileRule& rule : profile.rules) {
    out += "\n[[rules]]\n";
    if (rule.backend != profile.backend) out += fmt::format("backend = {}\n", quoted(rule.backend));
    text_key(out, "op", rule.op);
    text_key(out, "role", rule.role);
    text_key(out, "tensor", rule.tensor);
    text_key(out, "qtype", rule.qtype);
    text_key(out, "layout", rule.layout);
    text_key(out, "arch", rule.arch);
    range_key(out, "m", rule.m);
    range_key(out, "n", rule.n);
    range_key(out, "k", rule.k);
    text_key(out, "template", rule.kernel);
    if (!rule.params.empty()) {
      out += "params = { ";
      for (size_t i = 0; i < rule.params.size(); ++i) {
        const auto& value = rule.params[i].value;
        out += fmt::format("{}{} = {}", i == 0 ? "" : ", ", rule.params[i].name,
                           std::holds_alternative<int64_t>(value) ? std::to_string(std::get<int64_t>(value))
                                                                  : quoted(std::get<std::string>(value)));
      }
      out += " }\n";
    }
    if (!rule.why.empty()) out += fmt::format("why = {}\n", quoted(rule.why));
  }
  return out;
}

}  // namespace apr
