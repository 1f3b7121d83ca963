#include "core/probe/parse.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/dispatch/isa.h"
#include "core/dispatch/weight_quant_type.h"

namespace apr {

namespace {

constexpr std::string_view kFlagValues = "1, true, on, yes or 0, false, off, no";
constexpr std::string_view kIsaValues = "portable, avx2, avx512";
constexpr std::string_view kPathValues = "a path";
constexpr std::string_view kPathsValues = "absolute paths, separated by ':'";
constexpr std::string_view kMapValues =
    "pattern=format[,pattern=format...], like blk.*.ffn_down.weight=q8_0,attn_v=f16";
constexpr std::string_view kKernelValues =
    "pattern=kernel[,pattern=kernel...], like ffn_down=gemv_float; `aprctl kernels list` shows the kernels";
constexpr std::string_view kProfileValues = "a profile's file, or its name";
constexpr std::string_view kFormatValues = "the name of a weight format, like q8_0 or vendor.nf4";

[[noreturn]] void bad_value(std::string_view name, std::string_view text, std::string_view good,
                            std::string_view why = "") {
  throw usage_error("{}={}: {}good values are {}", name, printable(text),
                    why.empty() ? "" : fmt::format("{}; ", why), good);
}

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return result;
}

// Pieces between separators; empty pieces are kept.
std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> pieces;
  size_t begin = 0;
  for (size_t end; (end = text.find(separator, begin)) != std::string_view::npos; begin = end + 1) {
    pieces.push_back(text.substr(begin, end - begin));
  }
  pieces.push_back(text.substr(begin));
  return pieces;
}

// A well-known type's own spelling, or a plugin's own name, which has a dot. Whether a plugin provides it is
// asked when a weight needs it.
std::string format_name(std::string_view probe, std::string_view text, std::string_view whole,
                        std::string_view good) {
  if (const auto type = parse_qtype(text)) return std::string(name(*type));
  if (text.find('.') != std::string_view::npos) return std::string(text);
  std::string known;
  for (WeightQuantType type : well_known_qtypes())
    known += fmt::format("{}{}", known.empty() ? "" : " ", name(type));
  bad_value(
      probe, whole, good,
      fmt::format("'{}' is no weight format (known: {}; a plugin's own has a dot)", printable(text), known));
}

}  // namespace

void parse_value(std::string_view name, std::string_view text, bool& value) {
  constexpr std::array<std::string_view, 4> kTrue = {"1", "true", "on", "yes"};
  constexpr std::array<std::string_view, 4> kFalse = {"0", "false", "off", "no"};
  const std::string word = lower(text);
  if (std::find(kTrue.begin(), kTrue.end(), word) != kTrue.end()) {
    value = true;
  } else if (std::find(kFalse.begin(), kFalse.end(), word) != kFalse.end()) {
    value = false;
  } else {
    bad_value(name, text, kFlagValues);
  }
}

void parse_value(std::string_view probe, std::string_view text, std::optional<apr_isa>& value) {
  const std::string word = lower(text);
  for (apr_isa isa : {APR_ISA_PORTABLE, APR_ISA_AVX2, APR_ISA_AVX512}) {
    if (word == name(isa)) value = isa;
  }
  if (!value) bad_value(probe, text, kIsaValues);
}

void parse_value(std::string_view name, std::string_view text, std::optional<std::filesystem::path>& value) {
  if (text.empty()) bad_value(name, text, kPathValues);
  value = std::filesystem::absolute(text).lexically_normal();
}

void parse_value(std::string_view name, std::string_view text, std::vector<std::filesystem::path>& value) {
  for (std::string_view piece : split(text, ':')) {
    // As in PATH a trailing ':' is common; unlike there it does not mean the working directory.
    if (piece.empty()) continue;
    if (piece.front() != '/') {
      bad_value(name, text, kPathsValues,
                fmt::format("'{}' is relative to whatever the working directory is", printable(piece)));
    }
    value.emplace_back(piece);
  }
  if (value.empty()) bad_value(name, text, kPathsValues);
}

void parse_value(std::string_view name, std::string_view text, std::vector<PatternQtype>& value) {
  for (std::string_view piece : split(text, ',')) {
    const size_t equals = piece.rfind('=');
    if (equals == std::string_view::npos || equals == 0 || equals + 1 == piece.size()) {
      bad_value(name, text, kMapValues, fmt::format("'{}' is not pattern=format", printable(piece)));
    }
    value.push_back({std::string(piece.substr(0, equals)),
                     format_name(name, piece.substr(equals + 1), text, kMapValues)});
  }
}

void parse_value(std::string_view name, std::string_view text, std::optional<FormatName>& value) {
  value = FormatName{format_name(name, text, text, kFormatValues)};
}

void parse_value(std::string_view name, std::string_view text, std::optional<ProfileName>& value) {
  if (text.empty()) bad_value(name, text, kProfileValues);
  value = ProfileName{std::string(text)};
}

void parse_value(std::string_view name, std::string_view text, std::vector<PatternKernel>& value) {
  for (std::string_view piece : split(text, ',')) {
    const size_t equals = piece.rfind('=');
    if (equals == std::string_view::npos || equals == 0 || equals + 1 == piece.size()) {
      bad_value(name, text, kKernelValues, fmt::format("'{}' is not pattern=kernel", printable(piece)));
    }
    value.push_back({std::string(piece.substr(0, equals)), std::string(piece.substr(equals + 1))});
  }
}

std::string text_of(bool value) { return value ? "1" : "0"; }
std::string text_of(const std::optional<apr_isa>& value) { return value ? std::string(name(*value)) : ""; }
std::string text_of(const std::optional<std::filesystem::path>& value) {
  return value ? value->native() : "";
}
std::string text_of(const std::vector<std::filesystem::path>& value) {
  std::string text;
  for (const std::filesystem::path& path : value) text += (text.empty() ? "" : ":") + path.native();
  return text;
}
std::string text_of(const std::vector<PatternQtype>& value) {
  std::string text;
  for (const PatternQtype& each : value) text += (text.empty() ? "" : ",") + each.pattern + "=" + each.format;
  return text;
}
std::string text_of(const std::optional<FormatName>& value) { return value ? value->text : ""; }

std::string text_of(const std::optional<ProfileName>& value) { return value ? value->text : ""; }
std::string text_of(const std::vector<PatternKernel>& value) {
  std::string text;
  for (const PatternKernel& each : value)
    text += (text.empty() ? "" : ",") + each.pattern + "=" + each.kernel;
  return text;
}

std::string_view values_of(bool Probes::*) { return kFlagValues; }
std::string_view values_of(std::optional<apr_isa> Probes::*) { return kIsaValues; }
std::string_view values_of(std::optional<std::filesystem::path> Probes::*) { return kPathValues; }
std::string_view values_of(std::vector<std::filesystem::path> Probes::*) { return kPathsValues; }
std::string_view values_of(std::vector<PatternQtype> Probes::*) { return kMapValues; }
std::string_view values_of(std::optional<FormatName> Probes::*) { return kFormatValues; }
std::string_view values_of(std::optional<ProfileName> Probes::*) { return kProfileValues; }
std::string_view values_of(std::vector<PatternKernel> Probes::*) { return kKernelValues; }

}  // namespace apr
