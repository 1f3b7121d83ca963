// Models in several files: NAME-00001-of-0000N.gguf.
#include <doctest/doctest.h>

#include "core/base/sha256.h"
#include "core/model/model.h"
#include "tests/base/expect_error.h"
#include "tests/base/temp_dir.h"
#include "tests/model/raw_gguf.h"

using namespace apr_test;

namespace {

// Part `index` (from 0) of `count`, as gguf-split writes it: the first has the model's metadata, and each has
// one tensor of `index + 1` floats (the first part may have none).
RawGguf part(uint16_t index, uint16_t count, int32_t total, bool with_tensor = true) {
  RawGguf raw;
  if (index == 0) raw.keys = {string_key("general.architecture", "llama")};
  raw.keys.push_back(u16_key("split.no", index));
  raw.keys.push_back(u16_key("split.count", count));
  raw.keys.push_back({"split.tensors.count", 5, Bytes().put(total).out});
  if (with_tensor) {
    raw.tensors = {{"t" + std::to_string(index), {uint64_t{1} + index}, 0, 0}};
    raw.data_bytes = 4 * (uint64_t{1} + index);
  }
  return raw;
}

std::string write_parts(const TempDir& dir, uint16_t count) {
  for (uint16_t i = 0; i < count; ++i) {
    char name[64];
    std::snprintf(name, sizeof name, "m-%05d-of-%05d.gguf", i + 1, count);
    dir.write(name, part(i, count, count).bytes());
  }
  return dir / "m-00001-of-00003.gguf";
}

}  // namespace

TEST_CASE("any part opens the whole model") {
  const TempDir dir;
  write_parts(dir, 3);
  std::string whole;
  for (const char* name : {"m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"}) {
    const apr::Model model = apr::open_gguf(dir / name);
    CHECK(model.files.size() == 3);
    REQUIRE(model.tensors.size() == 3);
    for (uint32_t i = 0; i < 3; ++i) {
      CHECK(model.tensors[i].name == "t" + std::to_string(i));
      CHECK(model.tensors[i].part == i);
      CHECK(model.tensors[i].k() == i + 1);
      const apr::MappedFile& file = *model.files[i];
      CHECK(model.tensors[i].data > file.data());
      CHECK(model.tensors[i].data < file.data() + file.size());
    }
    CHECK(model.meta.get_string("general.architecture") == "llama");
    CHECK(model.meta.origin() == dir / "m-00001-of-00003.gguf");
    // The hash is that of the parts one after the other.
    apr::Sha256 hash;
    for (const auto& file : model.files) hash.update(file->bytes());
    CHECK(model.sha256() == hash.finish_hex());
  }
}

TEST_CASE("a first part with metadata only") {
  const TempDir dir;
  dir.write("m-00001-of-00002.gguf", part(0, 2, 1, false).bytes());
  dir.write("m-00002-of-00002.gguf", part(1, 2, 1).bytes());
  CHECK(apr::open_gguf(dir / "m-00002-of-00002.gguf").tensors.size() == 1);
}

TEST_CASE("missing parts are named") {
  const TempDir dir;
  const std::string first = write_parts(dir, 3);
  std::filesystem::remove(dir / "m-00002-of-00003.gguf");
  CHECK_HAS(error_of([&] { return apr::open_gguf(first); }),
            "the model has 3 parts, and one is missing: " + (dir / "m-00002-of-00003.gguf") + "; fetch it");
  std::filesystem::remove(dir / "m-00003-of-00003.gguf");
  CHECK_HAS(error_of([&] { return apr::open_gguf(first); }), "and 2 are missing: ");

  const TempDir many;
  many.write("m-00009-of-00009.gguf", part(8, 9, 9).bytes());
  CHECK_HAS(error_of([&] { return apr::open_gguf(many / "m-00009-of-00009.gguf"); }),
            "m-00003-of-00009.gguf, ...; fetch them");
}

TEST_CASE("names and metadata must agree") {
  const TempDir dir;
  const std::string first = write_parts(dir, 3);
  std::filesystem::copy_file(first, dir / "renamed.gguf");
  CHECK_HAS(error_of([&] { return apr::open_gguf(dir / "renamed.gguf"); }),
            "renamed.gguf: it is part 1 of 3 of a model, but is not named NAME-00001-of-00003.gguf");
  // Two parts swapped.
  std::filesystem::copy_file(first, dir / "m-00002-of-00003.gguf",
                             std::filesystem::copy_options::overwrite_existing);
  CHECK_HAS(error_of([&] { return apr::open_gguf(first); }),
            "m-00002-of-00003.gguf: by its name it is part 2 of 3, but its metadata says part 1 of 3");
  std::filesystem::copy_file(first, dir / "m-00001-of-00004.gguf");
  CHECK_HAS(error_of([&] { return apr::open_gguf(dir / "m-00001-of-00004.gguf"); }),
            "by its name it is part 1 of 4, but its metadata says part 1 of 3");
  RawGguf plain = part(0, 3, 3);
  plain.keys.clear();
  CHECK_HAS(error_of([&] { return apr::open_gguf(dir.write("p-00001-of-00002.gguf", plain.bytes())); }),
            "by its name it is part 1 of 2, but its metadata has no split.count");
  RawGguf no_number = part(0, 3, 3);
  no_number.keys.erase(no_number.keys.begin() + 1);
  CHECK_HAS(error_of([&] { return apr::open_gguf(dir.write("q-00001-of-00003.gguf", no_number.bytes())); }),
            "'split.no' is missing");
}

TEST_CASE("the parts together must have the tensors that they speak of, each once") {
  const TempDir dir;
  dir.write("m-00001-of-00002.gguf", part(0, 2, 3).bytes());
  dir.write("m-00002-of-00002.gguf", part(1, 2, 3).bytes());
  CHECK_HAS(error_of([&] { return apr::open_gguf(dir / "m-00001-of-00002.gguf"); }),
            "split.tensors.count says 3 tensors, but the 2 parts together have 2");
  RawGguf twin = part(1, 2, 2);
  twin.tensors[0].name = "t0";
  dir.write("m-00001-of-00002.gguf", part(0, 2, 2).bytes());
  dir.write("m-00002-of-00002.gguf", twin.bytes());
  CHECK_HAS(error_of([&] { return apr::open_gguf(dir / "m-00001-of-00002.gguf"); }),
            "m-00002-of-00002.gguf: tensor 't0' is also in an earlier part");
  dir.write("m-00002-of-00002.gguf", "GGUF");
  CHECK_HAS(error_of([&] { return apr::open_gguf(dir / "m-00001-of-00002.gguf"); }),
            "m-00002-of-00002.gguf: the version at byte 4");
}

TEST_CASE("one file that mentions parts is one file") {
  const TempDir dir;
  for (const uint16_t count : {0, 1}) {  // gguf-split --merge leaves 0
    CHECK(apr::open_gguf(dir.write("m.gguf", part(0, count, 1).bytes())).tensors.size() == 1);
    CHECK(apr::open_gguf(dir.write("m-00001-of-00001.gguf", part(0, count, 1).bytes())).tensors.size() == 1);
  }
}
