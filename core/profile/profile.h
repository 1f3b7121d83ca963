// Profiles: TOML files that say which kernel serves which tensors. This file is about the text;
// core/profile/rules.h turns it into what crosses the waist. docs/profiles.md is the user's manual.
//
// Checked when a file is read, whatever backend it is for: syntax, unknown keys, types, empty ranges, names
// of weight formats. Checked once the backend is known (rules.h): names of kernels, operations and layouts,
// parameters and their values, rules that can never match. Only a load can tell whether a kernel serves a
// certain tensor.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace apr {

struct RuleRange {
  uint64_t least = 0, most = UINT64_MAX;  // inclusive
  int line = 0;                           // 0: the rule does not say
};

struct RuleParam {
  std::string name;
  std::variant<int64_t, std::string> value;  // a number, or the name of a value ("avx2")
  int line;
};

// One [[rules]] table; all that it leaves out matches anything.
struct ProfileRule {
  std::string origin;   // "profiles/h200.toml:12"
  std::string backend;  // of the rule, else of the file; "" = any
  std::optional<std::string> op, qtype, tensor, role, layout, arch;
  RuleRange m, n, k;
  std::optional<std::string> kernel;  // key `template`
  std::vector<RuleParam> params;
  std::string why;
  bool forced = false;  // asked for by name (APR_FORCE_KERNEL), not by a file
};

// What the figures behind a tuned profile depend on. Rules of another stamp are not used.
struct ProfileStamp {
  std::string device;  // apr_device_info.name
  std::string arch;
  std::string software;                       // driver, compiler, threads
  std::string kernels;                        // hash over the backend's templates
  std::map<std::string, std::string> codecs;  // format -> hash of its code
};

struct Profile {
  std::string name;  // of the file, without .toml
  std::string file;  // as shown in messages; "" for none
  std::string summary;
  std::string backend;   // of rules that name none
  bool precise = false;  // float activations everywhere, as --precise
  std::optional<ProfileStamp> stamp;
  std::vector<ProfileRule> rules;
};

// Throws apr::Error that begins with file:line.
Profile parse_profile(const std::string& text, const std::string& file);
Profile read_profile(const std::string& file);

// The text of a profile; parse_profile gives the same back. Comments are lines before everything else.
std::string to_toml(const Profile& profile, const std::vector<std::string>& comments);

// A file (anything with a '/' or ending in .toml), or the name of one in the folders, the first that has it.
// Throws a usage error that lists the names there are.
std::string find_profile(const std::string& name, const std::vector<std::string>& folders);

// Members of two stamps that differ, as text: "device: NVIDIA H100 instead of NVIDIA H200". Formats that only
// one of them knows are no difference.
std::vector<std::string> differences(const ProfileStamp& wanted, const ProfileStamp& here);

}  // namespace apr
