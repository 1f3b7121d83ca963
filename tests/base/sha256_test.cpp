#include "core/base/sha256.h"

#include <doctest/doctest.h>

#include "tests/base/expect_error.h"
#include "tests/base/temp_dir.h"

using apr::Sha256;
using apr::sha256_file;
using apr::sha256_hex;

// Values from FIPS 180-4's examples and NIST's test vectors.
TEST_CASE("SHA-256 of known texts") {
  CHECK(sha256_hex(std::string_view("")) ==
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha256_hex(std::string_view("abc")) ==
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(sha256_hex(std::string(1000000, 'a')) ==
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("pieces give what the whole gives, and the object starts over") {
  Sha256 hash;
  for (int round = 0; round < 2; ++round) {
    hash.update("a");
    hash.update("");
    hash.update("bc");
    CHECK(hash.finish_hex() == sha256_hex(std::string_view("abc")));
  }
  Sha256 moved = std::move(hash);
  moved.update("abc");
  CHECK(moved.finish_hex() == sha256_hex(std::string_view("abc")));
}

TEST_CASE("SHA-256 of files") {
  const apr_test::TempDir dir;
  const std::string content(3000001, 'z');  // not a whole number of pieces
  CHECK(sha256_file(dir.write("big", content)) == sha256_hex(content));
  CHECK(sha256_file(dir.write("empty", "")) == sha256_hex(std::string_view("")));
  CHECK_HAS(apr_test::error_of([&] { return sha256_file(dir / "none"); }),
            "none: cannot open it: No such file");
  CHECK_HAS(apr_test::error_of([&] { return sha256_file(dir.path().string()); }),
            "cannot read it: Is a directory");
}
