#include "core/text/stop_strings.h"

#include <doctest/doctest.h>

#include <random>

#include "tests/base/expect_error.h"

using namespace apr;
using namespace apr_test;

namespace {

struct Result {
  std::string text;
  std::string found;
  bool operator==(const Result&) const = default;
};

Result run(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
  StopStrings matcher(stops);
  Result result;
  for (const std::string& piece : pieces) result.text += matcher.push(piece);
  result.text += matcher.flush();
  if (matcher.found()) result.found = *matcher.found();
  return result;
}

// The definition, on the whole text: the stop string that ends first, the longest of those.
Result expected(const std::vector<std::string>& stops, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    std::string found;
    for (const std::string& stop : stops) {
      if (stop.size() > found.size() && text.substr(0, end).ends_with(stop)) found = stop;
    }
    if (!found.empty()) return {text.substr(0, end - found.size()), found};
  }
  return {text, ""};
}

}  // namespace

TEST_CASE("text is held back only while it may become a stop string") {
  StopStrings matcher({"STOP", "\n\nUser"});
  CHECK(matcher.push("Hello S") == "Hello ");
  CHECK(matcher.push("T") == "");
  CHECK(matcher.push("ART\n") == "START");
  CHECK(matcher.push("x") == "\nx");
  CHECK(matcher.push("\n") == "");
  CHECK(matcher.push("\n") == "");
  CHECK(matcher.push("\n") == "\n");
  CHECK(matcher.found() == nullptr);
  CHECK(matcher.push("User: hi") == "");
  REQUIRE(matcher.found() != nullptr);
  CHECK(*matcher.found() == "\n\nUser");
  CHECK(matcher.push("more") == "");
  CHECK(matcher.flush() == "");
}

TEST_CASE("held text is not lost at the end") {
  CHECK(run({"STOP"}, {"a", "ST"}) == Result{"aST", ""});
  CHECK(run({}, {"a", "ST"}) == Result{"aST", ""});
  StopStrings none({});
  CHECK(none.push("abc") == "abc");
}

TEST_CASE("overlapping beginnings and several stop strings") {
  CHECK(run({"aab"}, {"aaaab"}) == Result{"aa", "aab"});
  CHECK(run({"abab"}, {"ab", "a", "abab"}) == Result{"aba", "abab"});
  CHECK(run({"b", "abc"}, {"xabc"}) == Result{"xa", "b"});         // ends first
  CHECK(run({"bc", "abc", "c"}, {"xabc"}) == Result{"x", "abc"});  // ends together: the longest
  CHECK(run({"中"}, {"\xE4\xB8", "\xADx"}) == Result{"", "中"});
}

TEST_CASE("how the stream is cut makes no difference") {
  std::mt19937_64 random(13);
  for (int i = 0; i < 3000; ++i) {
    std::vector<std::string> stops(random() % 4);
    for (std::string& stop : stops) {
      for (size_t n = 1 + random() % 5; n > 0; --n) stop += "ab"[random() % 2];
    }
    std::string text;
    for (size_t n = random() % 40; n > 0; --n) text += "aabc"[random() % 4];
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size();) {
      const size_t length = 1 + random() % 4;
      pieces.push_back(text.substr(at, length));
      at += length;
    }
    CAPTURE(text);
    CHECK(run(stops, pieces) == expected(stops, text));
  }
}

TEST_CASE("an empty stop string is an error") {
  CHECK_HAS(error_of([] { return StopStrings({"a", ""}).found() == nullptr; }), "a stop string is empty");
}
