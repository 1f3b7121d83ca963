#include "core/base/log.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <thread>
#include <vector>

#include "tests/base/expect_error.h"
#include "tests/base/temp_dir.h"

namespace {

// What run() writes to the descriptor (1 or 2).
template <typename F>
std::string captured(int descriptor, F&& run) {
  const apr_test::TempDir dir;
  const std::string path = dir / "out";
  std::fflush(nullptr);
  const int saved = ::dup(descriptor);
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT, 0600);
  ::dup2(file, descriptor);
  ::close(file);
  run();
  std::fflush(nullptr);
  ::dup2(saved, descriptor);
  ::close(saved);
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

struct LevelScope {
  apr::LogLevel before = apr::log_level();
  ~LevelScope() { apr::set_log_level(before); }
};

}  // namespace

TEST_CASE("messages go to stderr with their level, and not below the level in force") {
  const LevelScope scope;
  apr::set_log_level(apr::LogLevel::Info);
  const auto all = [] {
    apr::log_debug("d {}", 1);
    apr::log_info("i {}", 2);
    apr::log_warning("w {{}} {}", 3);
    apr::log_error("e");
  };
  CHECK(captured(2, all) == "info: i 2\nwarning: w {} 3\nerror: e\n");
  CHECK(captured(1, [&] { captured(2, all); }).empty());
  apr::set_log_level(apr::LogLevel::Debug);
  CHECK(captured(2, all) == "debug: d 1\ninfo: i 2\nwarning: w {} 3\nerror: e\n");
  apr::set_log_level(apr::LogLevel::Error);
  CHECK(captured(2, all) == "error: e\n");
  apr::set_log_level(apr::LogLevel::Off);
  CHECK(captured(2, [&] {
          all();
          apr::log_message(apr::LogLevel::Off, "off is no level to log at");
        }).empty());
}

TEST_CASE("lines of several threads do not mix") {
  const LevelScope scope;
  apr::set_log_level(apr::LogLevel::Info);
  const std::string text = captured(2, [] {
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([] {
        for (int i = 0; i < 100; ++i) apr::log_info("{}", std::string(200, 'x'));
      });
    }
    for (std::thread& thread : threads) thread.join();
  });
  std::string expected;
  for (int i = 0; i < 400; ++i) expected += "info: " + std::string(200, 'x') + "\n";
  CHECK(text == expected);
}
