#include "tests/dispatch/dispatch_sites.h"

#include <algorithm>
#include <cctype>
#include <fstream>
#include <iterator>
#include <set>

namespace apr_test {

namespace {

bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

size_t skip_space(std::string_view text, size_t at) {
  while (at < text.size() && std::isspace(static_cast<unsigned char>(text[at])) != 0) ++at;
  return at;
}

// The identifier that begins at `at`, or nothing.
std::string_view word_at(std::string_view text, size_t at) {
  if (at >= text.size() || !is_word(text[at]) || (at > 0 && is_word(text[at - 1]))) return {};
  size_t end = at;
  while (end < text.size() && is_word(text[end])) ++end;
  return text.substr(at, end - at);
}

// The position after the bracket that closes the one at `at`; npos when it is never closed.
size_t after_matching(std::string_view text, size_t at, char open, char close) {
  int depth = 0;
  for (; at < text.size(); ++at) {
    if (text[at] == open) ++depth;
    if (text[at] == close && --depth == 0) return at + 1;
  }
  return std::string_view::npos;
}

int line_of(std::string_view text, size_t at) {
  return 1 + static_cast<int>(std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(at), '\n'));
}

// The position of the next single ':' (a '::' is part of a name).
size_t label_end(std::string_view text, size_t at) {
  for (; at < text.size(); ++at) {
    if (text[at] != ':') continue;
    if (at + 1 < text.size() && text[at + 1] == ':') {
      ++at;
      continue;
    }
    return at;
  }
  return text.size();
}

// Names that mean WeightQuantType in this text: itself, and `using X = apr::WeightQuantType;`.
std::set<std::string, std::less<>> names_of_the_enum(std::string_view text) {
  std::set<std::string, std::less<>> names{"WeightQuantType"};
  for (size_t at = 0; at < text.size(); ++at) {
    if (word_at(text, at) != "using") continue;
    size_t next = skip_space(text, at + 5);
    const std::string_view alias = word_at(text, next);
    if (alias.empty() || alias == "namespace" || alias == "enum") continue;
    next = skip_space(text, next + alias.size());
    if (next >= text.size() || text[next] != '=') continue;
    const std::string_view target = text.substr(next, std::min(text.find(';', next), text.size()) - next);
    for (size_t i = 0; i < target.size(); ++i) {
      if (names.contains(word_at(target, i))) names.emplace(alias);
    }
  }
  return names;
}

struct Switch {
  size_t word;        // of `switch`
  size_t body_begin;  // of its '{'
  size_t body_end;    // after its '}'
};

// The switch at a position that has the word `switch`; body_begin is npos when it has no braces.
Switch read_switch(std::string_view text, size_t word) {
  const size_t open = skip_space(text, word + 6);
  if (open >= text.size() || text[open] != '(') return {word, std::string_view::npos, 0};
  const size_t condition_end = after_matching(text, open, '(', ')');
  if (condition_end == std::string_view::npos) return {word, std::string_view::npos, 0};
  const size_t brace = skip_space(text, condition_end);
  if (brace >= text.size() || text[brace] != '{') return {word, std::string_view::npos, 0};
  const size_t end = after_matching(text, brace, '{', '}');
  return {word, brace, end == std::string_view::npos ? text.size() : end};
}

struct Labels {
  bool of_the_enum = false;
  bool has_default = false;
};

// The labels of this switch itself, not those of a switch inside it.
Labels own_labels(std::string_view text, const Switch& outer,
                  const std::set<std::string, std::less<>>& names) {
  Labels labels;
  for (size_t at = outer.body_begin + 1; at < outer.body_end; ++at) {
    const std::string_view word = word_at(text, at);
    if (word == "switch") {
      const Switch inner = read_switch(text, at);
      if (inner.body_begin != std::string_view::npos) at = inner.body_end - 1;
    } else if (word == "default") {
      const size_t colon = skip_space(text, at + word.size());
      if (colon < text.size() && text[colon] == ':') labels.has_default = true;
    } else if (word == "case") {
      const size_t end = label_end(text, at);
      for (size_t i = at + word.size(); i < end; ++i) {
        if (names.contains(word_at(text, i))) labels.of_the_enum = true;
      }
      at = end;
    }
  }
  return labels;
}

}  // namespace

std::string blank_comments_and_literals(std::string_view source) {
  std::string out(source);
  const auto blank = [&](size_t begin, size_t end) {
    for (size_t i = begin; i < std::min(end, out.size()); ++i) {
      if (out[i] != '\n') out[i] = ' ';
    }
  };
  size_t at = 0;
  while (at < source.size()) {
    const std::string_view rest = source.substr(at);
    size_t end = at + 1;
    if (rest.starts_with("//")) {
      end = std::min(source.find('\n', at), source.size());
      blank(at, end);
    } else if (rest.starts_with("/*")) {
      const size_t close = source.find("*/", at + 2);
      end = close == std::string_view::npos ? source.size() : close + 2;
      blank(at, end);
    } else if (rest.starts_with("R\"")) {
      const size_t paren = source.find('(', at);
      const std::string delimiter = paren == std::string_view::npos
                                        ? ""
                                        : ")" + std::string(source.substr(at + 2, paren - at - 2)) + "\"";
      const size_t close = delimiter.empty() ? std::string_view::npos : source.find(delimiter, paren);
      end = close == std::string_view::npos ? source.size() : close + delimiter.size();
      blank(at, end);
    } else if (rest[0] == '"' || (rest[0] == '\'' && (at == 0 || !is_word(source[at - 1])))) {
      // A ' after a digit is a separator, as in 1'000.
      while (end < source.size() && source[end] != rest[0] && source[end] != '\n')
        end += source[end] == '\\' ? 2 : 1;
      end = std::min(end + 1, source.size());
      blank(at, end);
    }
    at = end;
  }
  return out;
}

ScanResult scan_dispatch_sites(std::string_view source) {
  const std::string text = blank_comments_and_literals(source);
  const auto names = names_of_the_enum(text);
  ScanResult result;
  for (size_t at = 0; at < text.size(); ++at) {
    const std::string_view word = word_at(text, at);
    if (word == "using") {
      const size_t next = skip_space(text, at + word.size());
      if (word_at(text, next) != "enum") continue;
      const size_t end = std::min(text.find(';', next), text.size());
      for (size_t i = next; i < end; ++i) {
        if (names.contains(word_at(text, i))) result.using_enum_lines.push_back(line_of(text, at));
      }
    } else if (word == "switch") {
      const Switch found = read_switch(text, at);
      if (found.body_begin == std::string_view::npos) continue;
      const Labels labels = own_labels(text, found, names);
      if (!labels.of_the_enum) continue;
      result.sites.push_back(
          {line_of(text, found.word), line_of(text, found.body_begin), labels.has_default});
    }
  }
  return result;
}

std::vector<SiteFile> find_site_files(const std::filesystem::path& root,
                                      const std::vector<std::string>& folders) {
  static const std::set<std::string> kExtensions{".cpp", ".cc", ".cxx", ".h", ".hpp", ".inl", ".cu", ".cuh"};
  std::vector<SiteFile> files;
  for (const std::string& folder : folders) {
    if (!std::filesystem::is_directory(root / folder)) continue;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root / folder)) {
      if (!entry.is_regular_file() || !kExtensions.contains(entry.path().extension().string())) continue;
      std::ifstream in(entry.path(), std::ios::binary);
      const std::string source{std::istreambuf_iterator<char>(in), {}};
      if (source.find("WeightQuantType") == std::string::npos) continue;
      ScanResult scan = scan_dispatch_sites(source);
      if (!scan.sites.empty() || !scan.using_enum_lines.empty())

        files.push_back({std::filesystem::canonical(entry.path()),
                         entry.path().lexically_relative(root).generic_string(), std::move(scan)});
    }
  }
  std::sort(files.begin(), files.end(), [](const SiteFile& a, const SiteFile& b) { return a.name < b.name; });
  return files;
}

}  // namespace apr_test
