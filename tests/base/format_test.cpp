#include "core/base/format.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "core/base/wrap.h"

using apr::human_bytes;
using apr::human_count;
using apr::joined;
using apr::printable;
using apr::utf8_length;

TEST_CASE("bytes for people: three digits and a binary unit") {
  CHECK(human_bytes(0) == "0 B");
  CHECK(human_bytes(1023) == "1023 B");
  CHECK(human_bytes(1024) == "1.00 KiB");
  CHECK(human_bytes(1536) == "1.50 KiB");
  CHECK(human_bytes(1024 * 1024 - 1) == "1.00 MiB");
  CHECK(human_bytes(1234567890) == "1.15 GiB");
  CHECK(human_bytes(15ULL << 30) == "15.0 GiB");
  CHECK(human_bytes(150ULL << 30) == "150 GiB");
  CHECK(human_bytes(UINT64_MAX) == "16.0 EiB");
}

TEST_CASE("wrapped text keeps to 80 columns, not bytes, and to the text's own lines; it breaks no word") {
  using apr::wrapped;
  const std::string word(38, 'w'), wide = "\xC2\xB1" + std::string(37, 'w'), path(100, '/');
  CHECK(wrapped(word + " " + word + " x", 2) == "  " + word + " " + word + "\n  x\n");
  CHECK(wrapped(word + " " + word + " " + word, 0, 4) == word + " " + word + "\n    " + word + "\n");
  CHECK(wrapped(wide + " " + wide + " x", 0) == wide + " " + wide + " x\n");
  CHECK(wrapped("one\ntwo", 1, 3) == " one\n   two\n");
  CHECK(wrapped("a " + path + " b", 1) == " a\n " + path + "\n b\n");
  CHECK(wrapped("columns  apart  ", 0) == "columns  apart\n");
  CHECK(wrapped("a\n\nb", 2) == "  a\n\n  b\n");
}

TEST_CASE(
    "paragraphs flow to 80 columns wherever the source broke its lines; items keep lines of their own") {
  using apr::reflowed;
  const std::string word(38, 'w');
  CHECK(reflowed("") == "");
  CHECK(reflowed("one\ntwo\nthree") == "one two three\n");
  CHECK(reflowed(word + "\n" + word + " x") == word + " " + word + " x\n");
  CHECK(reflowed(word + " " + word + "\n" + word) == word + " " + word + "\n" + word + "\n");
  CHECK(reflowed("one\ntwo\n\nthree\n") == "one two\n\nthree\n");
  CHECK(reflowed("head\n  one\n  two\nmore\n\ntail") == "head\n  one\n  two more\n\ntail\n");
  CHECK(reflowed("  " + word + " " + word + " " + word + "\n  x") ==
        "  " + word + " " + word + "\n    " + word + "\n  x\n");
}

TEST_CASE("the first column of a row: filled up, or a line of its own") {
  using apr::first_column;
  CHECK(first_column("name", 6) == "name  ");
  CHECK(first_column("\xC2\xB1"
                     "1234",
                     6) ==
        "\xC2\xB1"
        "1234 ");
  CHECK(first_column("123456", 6) == "123456");
  CHECK(first_column("1234567", 6) == "1234567\n      ");
}

TEST_CASE("bits per weight") {
  CHECK(apr::bits_per_weight(144, 256) == 4.5);
  CHECK(apr::bits_per_weight(0, 0) == 0);
}

TEST_CASE("counts for people: three digits and a decimal unit") {
  CHECK(human_count(999) == "999");
  CHECK(human_count(1000) == "1.00K");
  CHECK(human_count(1543714304) == "1.54B");
  CHECK(human_count(999999) == "1.00M");
  CHECK(human_count(7240000000) == "7.24B");
}

TEST_CASE("joined") {
  CHECK(joined(std::vector<int>{}) == "");
  CHECK(joined(std::vector<int>{7}) == "7");
  CHECK(joined(std::vector<int>{4096, 32000}) == "4096, 32000");
  CHECK(joined(std::vector<const char*>{"a", "b"}, "|") == "a|b");
}

TEST_CASE("UTF-8 is measured as Unicode's table 3-7 defines it") {
  CHECK(utf8_length("") == 0);
  CHECK(utf8_length("a") == 1);
  CHECK(utf8_length("é") == 2);
  CHECK(utf8_length("€uro") == 3);
  CHECK(utf8_length("😀") == 4);
  CHECK(utf8_length("\xF4\x8F\xBF\xBF") == 4);  // U+10FFFF
  CHECK(utf8_length("\xF4\x90\x80\x80") == 0);  // above it
  CHECK(utf8_length("\xC0\x80") == 0);          // overlong
  CHECK(utf8_length("\xE0\x9F\xBF") == 0);
  CHECK(utf8_length("\xF0\x8F\xBF\xBF") == 0);
  CHECK(utf8_length("\xED\xA0\x80") == 0);  // a surrogate
  CHECK(utf8_length("\x80") == 0);
  CHECK(utf8_length("\xE2\x82") == 0);  // cut
  CHECK(utf8_length("\xFF") == 0);
}

TEST_CASE("printable text: whole characters stay, the rest is shown as bytes") {
  CHECK(printable("blk.0.attn_q.weight") == "blk.0.attn_q.weight");
  CHECK(printable("grün 😀") == "grün 😀");
  CHECK(printable(std::string_view("a\0b", 3)) == "a\\x00b");
  CHECK(printable("\x1b[31mred\n") == "\\x1B[31mred\\x0A");
  CHECK(printable("\xC2\x9B"
                  "31m") == "\\xC2\\x9B31m");  // CSI as one character
  CHECK(printable("\xC2\xA0") == "\xC2\xA0");  // a no-break space is harmless
  CHECK(printable("\xC2") == "\\xC2");
  CHECK(printable("\xFFok") == "\\xFFok");
  CHECK(printable("abcdef", 3) == "abc…");
  CHECK(printable("abc", 3) == "abc");
}
