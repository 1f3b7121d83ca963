// An interrupted evaluation's file: whole, for the same evaluation, or not used.
#include <doctest/doctest.h>

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "core/base/error.h"
#include "core/eval/state.h"

using namespace apr;

TEST_CASE("a state is read back as it was, and by its own evaluation alone") {
  namespace fs = std::filesystem;
  const fs::path folder = fs::temp_directory_path() / ("apr-eval-state-" + std::to_string(::getpid()));
  fs::create_directory(folder);
  const std::string path = (folder / "x.state").string();
  const std::string key(64, 'a'), other(64, 'b');
  EvalState state;
  state.windows_done = 3;
  for (int i = 0; i < 12; ++i) state.scores.push_back({0.1 * i, 0.2 * i, 0.3 * i, -0.4 * i, i % 2 * 1.0});
  std::string why;
  CHECK(read_eval_state(path, key, 4, why).windows_done == 0);
  CHECK(why.empty());
  write_eval_state(path, key, state);
  const EvalState again = read_eval_state(path, key, 4, why);
  CHECK(why.empty());
  REQUIRE(again.windows_done == 3);
  REQUIRE(again.scores.size() == 12);
  for (size_t i = 0; i < 12; ++i) {
    CHECK(again.scores[i].nll == state.scores[i].nll);
    CHECK(again.scores[i].dp == state.scores[i].dp);
    CHECK(again.scores[i].same_top == state.scores[i].same_top);
  }
  CHECK(read_eval_state(path, other, 4, why).scores.empty());
  CHECK(why.find("another evaluation") != std::string::npos);
  CHECK(read_eval_state(path, key, 5, why).scores.empty());
  CHECK(why.find("counts") != std::string::npos);

  // Every changed byte and every cut is noticed.
  std::ifstream in(path, std::ios::binary);
  const std::string whole((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const auto with = [&](const std::string& bytes) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
    return read_eval_state(path, key, 4, why);
  };
  for (size_t at = 0; at < whole.size(); at += 7) {
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ 1);
    CHECK(with(changed).scores.empty());
    CHECK_FALSE(why.empty());
    CHECK(with(whole.substr(0, at)).scores.empty());
    CHECK_FALSE(why.empty());
  }
  CHECK(with(whole).scores.size() == 12);
  CHECK_THROWS_WITH_AS(write_eval_state("/no/such/folder/x", key, state),
                       doctest::Contains("/no/such/folder/x"), Error);
  fs::remove_all(folder);
}
