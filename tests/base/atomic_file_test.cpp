#include "core/base/atomic_file.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "tests/base/expect_error.h"
#include "tests/base/temp_dir.h"

namespace {

using apr::AtomicFile;
using apr_test::error_of;
using apr_test::TempDir;

size_t files_in(const TempDir& dir) {
  return static_cast<size_t>(
      std::distance(std::filesystem::directory_iterator(dir.path()), std::filesystem::directory_iterator()));
}

std::string text_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

TEST_CASE("a whole file at once") {
  const TempDir dir;
  apr::write_file_atomically(dir / "x", "text");
  apr::write_file_atomically(dir / "x", "another");
  CHECK(text_of(dir / "x") == "another");
  CHECK(files_in(dir) == 1);
  CHECK(error_of([&] { apr::write_file_atomically(dir / "none/x", "text"); }).find("none/x") !=
        std::string::npos);
}

TEST_CASE("an atomic file appears whole, or not at all") {
  const TempDir dir;
  const std::string path = dir / "out";
  {
    AtomicFile file(path);
    file.reserve(1 << 20);
    file.write("first");
    CHECK_FALSE(std::filesystem::exists(path));
  }
  CHECK(files_in(dir) == 0);
  {
    AtomicFile file(path);
    file.reserve(1 << 20);  // more than is written: the size is that of the text all the same
    file.write("second");
    file.commit();
    CHECK_FALSE(file.open());
  }
  CHECK(text_of(path) == "second");
  {
    AtomicFile file(path);
    file.write("third");
  }
  CHECK(text_of(path) == "second");
  CHECK(files_in(dir) == 1);
}

TEST_CASE("what a killed writer left is removed by the next one, what a living one holds is not") {
  const TempDir dir;
  const std::string path = dir / "out";
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    AtomicFile file(path);
    file.write(std::string(3 << 20, 'x'));
    ::raise(SIGKILL);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFSIGNALED(status));
  CHECK(files_in(dir) == 1);
  CHECK_FALSE(std::filesystem::exists(path));
  std::ofstream(dir / "out.part-notahexa") << "a person's";
  std::ofstream(dir / "out2.part-00000000") << "another file's";

  AtomicFile living(path);
  CHECK(files_in(dir) == 3);
  AtomicFile second(path);
  CHECK(files_in(dir) == 4);
  living.write("living");
  living.commit();
  CHECK(text_of(path) == "living");
  second.write("second");
  second.commit();
  CHECK(text_of(path) == "second");
  CHECK(files_in(dir) == 3);
}

TEST_CASE("a write that fails half way names the file and leaves nothing") {
  const TempDir dir;
  // A limit on the file's size stands for a full disk: the kernel refuses the write in the same way.
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{3 << 20, before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  const std::string late = error_of([&] {
    AtomicFile file(dir / "out");
    file.write(std::string(8 << 20, 'x'));
    file.commit();
    return 0;
  });
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  CHECK_HAS(late, "out: cannot write it: File too large");
  CHECK(files_in(dir) == 0);
}

TEST_CASE("an atomic file takes no place but a file's") {
  const TempDir dir;
  CHECK_HAS(error_of([&] { return AtomicFile(dir.path().string()).open(); }), "is a directory");
  CHECK_HAS(error_of([&] { return AtomicFile(dir / "no/such").open(); }), "no/such: cannot create it");
  REQUIRE(::mkfifo((dir / "pipe").c_str(), 0600) == 0);
  CHECK_HAS(error_of([&] { return AtomicFile(dir / "pipe").open(); }), "is no regular file");
}

TEST_CASE("room that the disk does not have is refused before the first byte") {
  const TempDir dir;
  CHECK_HAS(error_of([&] {
              AtomicFile file(dir / "out");
              file.reserve(uint64_t{1} << 50);
              return 0;
            }),
            "out: cannot write it: it takes 1.00 PiB: ");
  CHECK(files_in(dir) == 0);
}
