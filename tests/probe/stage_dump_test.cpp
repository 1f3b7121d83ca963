#include "core/probe/stage_dump.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>

#include "core/base/error.h"

using namespace apr;
namespace fs = std::filesystem;

namespace {

struct Folder {
  Folder() {
    std::string name = (fs::temp_directory_path() / "apr-stage-test-XXXXXX").native();
    if (!mkdtemp(name.data())) throw std::runtime_error("no temporary folder");
    path = name;
  }
  ~Folder() { fs::remove_all(path); }
  fs::path path;
};

struct Batch {
  std::vector<int32_t> tokens = {5, 6, 7}, positions = {10, 11, 0}, sequences = {0, 0, 1};
  std::vector<uint8_t> want = {0, 1, 0};
  apr_batch c{sizeof(apr_batch), 3, tokens.data(), positions.data(), sequences.data(), want.data(), 0};
};

template <typename F>
std::string error_of(F call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("stages come back as they were, in the order in which they were reported") {
  const Folder folder;
  const Batch batch;
  StageDump dump(folder.path / "d", "cpu", "abc123");
  const float embed[6] = {1, 2, 3, 4, std::nanf(""), -INFINITY}, logits[4] = {0.5f, -1, 2, 3e-40f};
  for (int step = 0; step < 2; ++step) {
    dump.begin_step(batch.c);
    StageDump::tap(&dump, "embed", embed, 3, 2);
    StageDump::tap(&dump, "logits", logits, 1, 4);
    dump.end_step();
  }
  for (uint64_t step = 0; step < 2; ++step) {
    const std::vector<fs::path> files = stage_files(folder.path / "d", "cpu", step);
    REQUIRE(files.size() == 2);
    const StageRecord first = read_stage(files[0]), last = read_stage(files[1]);
    CHECK(first.stage == "embed");
    CHECK(first.backend == "cpu");
    CHECK(first.model == "abc123");
    CHECK(first.step == step);
    CHECK(first.rows == 3);
    CHECK(first.width == 2);
    CHECK(first.positions == std::vector<int32_t>{10, 11, 0});
    CHECK(first.sequences == std::vector<int32_t>{0, 0, 1});
    CHECK(first.data[3] == 4);
    CHECK(std::isnan(first.data[4]));
    CHECK(first.data[5] == -INFINITY);
    CHECK(last.stage == "logits");
    CHECK(last.positions == std::vector<int32_t>{11});  // the wanted token
    CHECK(last.data == std::vector<float>(logits, logits + 4));
  }
  CHECK_THROWS_AS(stage_files(folder.path / "d", "cpu", 2), Error);
}

TEST_CASE("data begin at a multiple of 64 bytes") {
  const Folder folder;
  const Batch batch;
  StageDump dump(folder.path, "cpu", "m");
  const float data[3] = {1, 2, 3};
  dump.begin_step(batch.c);
  StageDump::tap(&dump, "x", data, 3, 1);
  dump.end_step();
  CHECK((fs::file_size(stage_files(folder.path, "cpu", 0)[0]) - sizeof(data)) % 64 == 0);
}

TEST_CASE("two runs never share a folder") {
  const Folder folder;
  const StageDump first(folder.path, "cpu", "m");
  CHECK(has(error_of([&] { StageDump(folder.path, "cpu", "m"); }), "exists already"));
  CHECK(error_of([&] { StageDump(folder.path, "cuda", "m"); }) == "");
}

TEST_CASE("a failure inside the tap waits for the step's end") {
  const Folder folder;
  const Batch batch;
  StageDump dump(folder.path, "cpu", "m");
  dump.begin_step(batch.c);
  const float data[2] = {};
  StageDump::tap(&dump, "x", data, 2, 1);  // neither 3 tokens nor 1 wanted one
  CHECK(has(error_of([&] { dump.end_step(); }),
            "reports 2 rows of stage x, but the batch has 3 tokens and 1 wanted ones"));
  CHECK(error_of([&] { dump.begin_step(batch.c), dump.end_step(); }) == "");
}

TEST_CASE("a stage name cannot leave the folder") {
  const Folder folder;
  const Batch batch;
  StageDump dump(folder.path, "cpu", "m");
  const float data[3] = {};
  dump.begin_step(batch.c);
  StageDump::tap(&dump, "../../evil", data, 3, 1);
  dump.end_step();
  const auto files = stage_files(folder.path, "cpu", 0);
  REQUIRE(files.size() == 1);
  CHECK(read_stage(files[0]).stage == "../../evil");
}

TEST_CASE("a damaged file is an error that names it") {
  const Folder folder;
  const Batch batch;
  StageDump dump(folder.path, "cpu", "m");
  const float data[3] = {};
  dump.begin_step(batch.c);
  StageDump::tap(&dump, "x", data, 3, 1);
  dump.end_step();
  const fs::path file = stage_files(folder.path, "cpu", 0)[0];
  const auto whole = fs::file_size(file);
  for (uintmax_t size : {whole - 1, whole - 12, uintmax_t{30}, uintmax_t{0}}) {
    fs::resize_file(file, size);
    CHECK(has(error_of([&] { read_stage(file); }), file.native()));
  }
  std::ofstream(file) << "{}\n";
  CHECK(has(error_of([&] { read_stage(file); }), "is no stage dump that this version can read"));
  CHECK(has(error_of([&] { read_stage(folder.path / "nothing"); }), "cannot be opened"));
}
