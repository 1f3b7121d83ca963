// Finds every switch over WeightQuantType in a source text. A small reader of C++ tokens, not a text search:
// comments, strings, nested switches and type aliases are understood. What it finds is then put to the
// compiler, which has the last word (contract_test.cpp).
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace apr_test {

struct DispatchSite {
  int first_line;  // of the word `switch`
  int last_line;   // of the brace that opens its body: compilers report a line between these two
  bool has_default;
};

struct ScanResult {
  std::vector<DispatchSite> sites;
  // Lines with `using enum WeightQuantType`: it would hide sites from this scan, so it is not allowed.
  std::vector<int> using_enum_lines;
};

ScanResult scan_dispatch_sites(std::string_view source);

// The same text with comments, string and character literals blanked; line breaks and length stay.
std::string blank_comments_and_literals(std::string_view source);

struct SiteFile {
  std::filesystem::path path;  // canonical, to compare with what compilers and compile commands name
  std::string name;            // relative to the root: "core/dispatch/visit.h", as an #include has it
  ScanResult scan;
};

// Every C++ source and header under root/FOLDER, for each folder that exists, that has a site or a `using
// enum`.
std::vector<SiteFile> find_site_files(const std::filesystem::path& root,
                                      const std::vector<std::string>& folders);

}  // namespace apr_test
