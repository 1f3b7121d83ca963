// How the text of a probe becomes a value, one overload for each type of member in Probes. Each throws a
// usage error that names the probe, the text and the good values.
#pragma once

#include <filesystem>
#include <optional>
#include <string_view>
#include <vector>

#include "core/probe/probe.h"

namespace apr {

void parse_value(std::string_view name, std::string_view text, bool& value);
void parse_value(std::string_view name, std::string_view text, std::optional<apr_isa>& value);
void parse_value(std::string_view name, std::string_view text, std::optional<std::filesystem::path>& value);
void parse_value(std::string_view name, std::string_view text, std::vector<std::filesystem::path>& value);
void parse_value(std::string_view name, std::string_view text, std::vector<PatternQtype>& value);
void parse_value(std::string_view name, std::string_view text, std::optional<FormatName>& value);
void parse_value(std::string_view name, std::string_view text, std::optional<ProfileName>& value);
void parse_value(std::string_view name, std::string_view text, std::vector<PatternKernel>& value);

// The text that a backend's setting gets: flags as 1 or 0, paths absolute.
std::string text_of(bool value);
std::string text_of(const std::optional<apr_isa>& value);
std::string text_of(const std::optional<std::filesystem::path>& value);
std::string text_of(const std::vector<std::filesystem::path>& value);
std::string text_of(const std::vector<PatternQtype>& value);
std::string text_of(const std::optional<FormatName>& value);
std::string text_of(const std::optional<ProfileName>& value);
std::string text_of(const std::vector<PatternKernel>& value);

// The good values in words, chosen by the member's type.
std::string_view values_of(bool Probes::*);
std::string_view values_of(std::optional<apr_isa> Probes::*);
std::string_view values_of(std::optional<std::filesystem::path> Probes::*);
std::string_view values_of(std::vector<std::filesystem::path> Probes::*);
std::string_view values_of(std::vector<PatternQtype> Probes::*);
std::string_view values_of(std::optional<FormatName> Probes::*);
std::string_view values_of(std::optional<ProfileName> Probes::*);
std::string_view values_of(std::vector<PatternKernel> Probes::*);

}  // namespace apr
