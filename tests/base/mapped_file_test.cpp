#include "core/base/mapped_file.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "tests/base/expect_error.h"
#include "tests/base/temp_dir.h"

using apr::Access;
using apr::MappedFile;
using apr_test::error_of;
using apr_test::TempDir;

TEST_CASE("a mapped file shows the file's bytes") {
  const TempDir dir;
  const std::string content = std::string(5000, 'x') + "the end";
  const auto file = MappedFile::open(dir.write("a.bin", content));
  CHECK(file->size() == content.size());
  CHECK(file->path() == dir / "a.bin");
  CHECK(std::memcmp(file->data(), content.data(), content.size()) == 0);
  CHECK(file->bytes().size() == content.size());
}

TEST_CASE("the mapping outlives the name") {
  const TempDir dir;
  const auto file = MappedFile::open(dir.write("a.bin", "abc"));
  std::filesystem::remove(dir / "a.bin");
  CHECK(static_cast<char>(file->data()[2]) == 'c');
}

TEST_CASE("advice never changes what is read, whatever the range") {
  const TempDir dir;
  const std::string content(3 * 4096 + 100, 'q');
  const auto file = MappedFile::open(dir.write("a.bin", content));
  for (const Access access :
       {Access::Normal, Access::Sequential, Access::Random, Access::WillNeed, Access::DontNeed}) {
    file->advise(access);
    file->advise(access, 100, 5000);
    file->advise(access, 4095, 2);
    file->advise(access, file->size(), 1);  // nothing
    file->advise(access, 10, UINT64_MAX);   // cut to the file
    file->advise(access, UINT64_MAX, UINT64_MAX);
    CHECK(std::memcmp(file->data(), content.data(), content.size()) == 0);
  }
}

TEST_CASE("each reason why a file cannot be mapped has its own message") {
  const TempDir dir;
  CHECK_HAS(error_of([&] { return MappedFile::open(dir / "none.gguf"); }), "none.gguf: no such file");
  CHECK_HAS(error_of([&] { return MappedFile::open(dir.write("f", "x") + "/g"); }), "no such file");
  CHECK_HAS(error_of([&] { return MappedFile::open(dir.path().string()); }), "is a directory");
  CHECK_HAS(error_of([&] { return MappedFile::open(dir.write("zero", "")); }), "zero: is empty");
  CHECK_HAS(error_of([&] { return MappedFile::open(""); }), "no file name");
  CHECK_HAS(error_of([&] { return MappedFile::open("/dev/null"); }), "not a regular file");
  CHECK_HAS(error_of([&] { return MappedFile::open(std::string(5000, 'n')); }), "too long");

  const std::string loop = dir / "loop";
  std::filesystem::create_symlink(loop, loop);
  CHECK_HAS(error_of([&] { return MappedFile::open(loop); }), "symbolic links");

  // A FIFO without a writer must be refused, not waited for.
  REQUIRE(::mkfifo((dir / "fifo").c_str(), 0600) == 0);
  CHECK_HAS(error_of([&] { return MappedFile::open(dir / "fifo"); }), "not a regular file");

  const std::string secret = dir.write("secret", "x");
  REQUIRE(::chmod(secret.c_str(), 0) == 0);
  if (::geteuid() == 0) {
    MESSAGE("running as root, which may read everything: the no-permission message is not tested");
  } else {
    CHECK_HAS(error_of([&] { return MappedFile::open(secret); }), "no permission");
  }
}

TEST_CASE("a file name cannot send control sequences to the terminal") {
  const TempDir dir;
  const std::string message = error_of([&] { return MappedFile::open(dir / "evil\x1b[31m"); });
  CHECK_HAS(message, "evil\\x1B[31m");
  CHECK(message.find('\x1b') == std::string::npos);
}
