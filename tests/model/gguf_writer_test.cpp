#include "core/model/gguf_writer.h"

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <numeric>

#include "core/model/gguf_format.h"
#include "core/model/gguf_parse.h"
#include "core/model/model.h"
#include "tests/base/expect_error.h"
#include "tests/base/temp_dir.h"
#include "tests/model/sample_model.h"

using apr::GgufTensor;
using apr::GgufWriter;
using apr::Metadata;
using apr::MetaType;
using apr::WeightQuantType;
using namespace apr_test;

namespace {

std::vector<std::byte> pattern(uint64_t bytes, unsigned start) {
  std::vector<std::byte> out(bytes);
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<std::byte>((start + i) % 251);
  return out;
}

size_t files_in(const TempDir& dir) {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(dir.path()), {}));
}

// Writes one small f32 tensor.
void write_small(const std::string& path, std::string name = "t") {
  GgufWriter writer(path, Metadata("made"), {apr::gguf_tensor(std::move(name), WeightQuantType::F32, {3})});
  writer.append(pattern(12, 0));
  writer.finish();
}

}  // namespace

TEST_CASE("what is written is read back: metadata with stored types, tensors with their bytes") {
  const TempDir dir;
  const Metadata meta = sample_metadata();
  const std::vector<GgufTensor> tensors = sample_tensors();
  const std::string path = dir / "out.gguf";
  {
    GgufWriter writer(path, meta, tensors);
    for (size_t i = 0; i < tensors.size(); ++i) {
      // In pieces of odd sizes; an empty piece is no piece.
      const auto bytes = pattern(writer.tensor_bytes(i), static_cast<unsigned>(i));
      const size_t piece = 1 + 100 * i;
      writer.append({});
      for (size_t at = 0; at < bytes.size(); at += piece) {
        writer.append(std::span(bytes).subspan(at, std::min(piece, bytes.size() - at)));
      }
    }
    CHECK_FALSE(std::filesystem::exists(path));  // not before it is whole
    writer.finish();
    CHECK(std::filesystem::exists(path));
  }
  CHECK(files_in(dir) == 1);

  const apr::Model model = apr::open_gguf(path);
  for (const auto& entry : meta.entries()) {
    const std::string& key = entry.first;
    CAPTURE(key);
    REQUIRE(model.meta.has(key));
    CHECK(*model.meta.find(key) == entry.second);
    CHECK(model.meta.stored_type(key) == meta.stored_type(key));
  }
  REQUIRE(model.tensors.size() == tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const apr::Tensor& tensor = model.tensors[i];
    CAPTURE(tensor.name);
    CHECK(tensor.name == tensors[i].name);
    CHECK(tensor.qtype == tensors[i].qtype);
    CHECK(tensor.format == tensors[i].format);
    CHECK(tensor.dims == tensors[i].dims);
    const auto expected = pattern(tensor.bytes, static_cast<unsigned>(i));
    CHECK(std::memcmp(tensor.data, expected.data(), expected.size()) == 0);
    CHECK((tensor.data - model.files[0]->data()) % 64 == 0);
  }
  CHECK(model.meta.get_strings("apr.extension_formats") == std::vector<std::string>{"f8_e4m3", "vendor.nf4"});
}

TEST_CASE("reading and writing again changes nothing") {
  const auto file = sample_file();
  const apr::GgufPart part = apr::parse_gguf(file, "sample");
  const auto again = apr::gguf_header(part.meta, sample_tensors());
  REQUIRE(again.size() < file.size());
  CHECK(std::memcmp(again.data(), file.data(), again.size()) == 0);
}

TEST_CASE("large pieces and small ones make the same file") {
  const TempDir dir;
  const uint64_t columns = 1 << 20;  // 4 MiB: several buffers
  const auto bytes = pattern(columns * 4, 3);
  for (const size_t piece : {bytes.size(), size_t{1000003}, size_t{4096}}) {
    GgufWriter writer(dir / std::to_string(piece), Metadata("made"),
                      {apr::gguf_tensor("t", WeightQuantType::F32, {columns})});
    for (size_t at = 0; at < bytes.size(); at += piece) {
      writer.append(std::span(bytes).subspan(at, std::min(piece, bytes.size() - at)));
    }
    writer.finish();
    const apr::Model model = apr::open_gguf(dir / std::to_string(piece));
    CHECK(std::memcmp(model.tensors[0].data, bytes.data(), bytes.size()) == 0);
  }
}

TEST_CASE("a file that is not finished leaves nothing, and an old one as it was") {
  const TempDir dir;
  const std::string path = dir.write("out.gguf", "the old content");
  {
    GgufWriter writer(path, sample_metadata(), sample_tensors());
    writer.append(pattern(20, 0));
    writer.append(pattern(100, 0));
    CHECK(files_in(dir) == 2);
    CHECK_HAS(error_of([&] {
                writer.finish();
                return 0;
              }),
              "out.gguf: tensor 'blk.0.attn_q.weight' has 100 of its 432 bytes; the file is not complete");
  }
  CHECK(files_in(dir) == 1);
  CHECK(std::filesystem::file_size(path) == 15);

  write_small(path);
  CHECK(files_in(dir) == 1);
  CHECK(apr::open_gguf(path).tensors.size() == 1);
}

TEST_CASE("bytes that do not fit the tensor are refused") {
  const TempDir dir;
  GgufWriter writer(
      dir / "out.gguf", Metadata("made"),
      {apr::gguf_tensor("a", WeightQuantType::F32, {3}), apr::gguf_tensor("b", WeightQuantType::F32, {1})});
  const auto append = [&](uint64_t bytes) {
    return error_of([&] {
      writer.append(pattern(bytes, 0));
      return 0;
    });
  };
  CHECK(append(8) == "(no error)");
  CHECK_HAS(append(5), "tensor 'a' has 12 bytes; 8 are written, and 5 more do not fit");
  CHECK(append(4) == "(no error)");
  CHECK(append(4) == "(no error)");
  CHECK_HAS(append(1), "1 bytes more than all 2 tensors have");
  writer.finish();
  CHECK_HAS(append(1), "the file is finished");
  CHECK_HAS(error_of([&] {
              writer.finish();
              return 0;
            }),
            "finished already");
  CHECK(apr::open_gguf(dir / "out.gguf").tensors.size() == 2);
}

TEST_CASE("a model without tensors") {
  const TempDir dir;
  GgufWriter writer(dir / "vocab.gguf", sample_metadata(), {});
  writer.finish();
  CHECK(apr::open_gguf(dir / "vocab.gguf").tensors.empty());
}

TEST_CASE("places that cannot be written to") {
  const TempDir dir;
  CHECK_HAS(error_of([&] {
              write_small(dir / "no-such-folder/out.gguf");
              return 0;
            }),
            "no-such-folder/out.gguf: cannot create it: No such file or directory");
  CHECK_HAS(error_of([&] {
              write_small(dir.path().string());
              return 0;
            }),
            "is a directory");
  CHECK_HAS(error_of([&] {
              write_small("/dev/full/out.gguf");
              return 0;
            }),
            "cannot create it: Not a directory");
}

TEST_CASE("a write that fails half way is one error, and leaves nothing") {
  const TempDir dir;
  // A limit on the file's size stands for a full disk: the kernel refuses the write in the same way.
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{3 << 20, before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  const std::string message = error_of([&] {
    GgufWriter writer(dir / "out.gguf", Metadata("made"),
                      {apr::gguf_tensor("t", WeightQuantType::F32, {2 << 20})});
    writer.append(pattern(writer.tensor_bytes(0), 0));
    writer.finish();
    return 0;
  });
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  CHECK_HAS(message, "out.gguf: cannot write it: File too large");
  CHECK(files_in(dir) == 0);
}

TEST_CASE("the file gets the mode that any new file gets") {
  const TempDir dir;
  const mode_t before = ::umask(022);
  write_small(dir / "out.gguf");
  ::umask(before);
  struct stat status {};
  REQUIRE(::stat((dir / "out.gguf").c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0644);
}

TEST_CASE("keys of the source's form are not carried over") {
  const TempDir dir;
  Metadata meta = sample_metadata();
  meta.add("split.no", uint64_t{2}, MetaType::U16);
  meta.add("split.count", uint64_t{3}, MetaType::U16);
  meta.add("split.tensors.count", int64_t{99}, MetaType::I32);
  meta.add("apr.extension_formats", apr::MetaArray(std::vector<std::string>{"old.format"}));
  GgufWriter writer(dir / "out.gguf", meta, {apr::gguf_tensor("a", WeightQuantType::F32, {1})});
  writer.append(pattern(4, 0));
  writer.finish();
  const apr::Model model = apr::open_gguf(dir / "out.gguf");
  CHECK_FALSE(model.meta.has("split.no"));
  CHECK_FALSE(model.meta.has("split.count"));
  CHECK_FALSE(model.meta.has("split.tensors.count"));
  CHECK_FALSE(model.meta.has("apr.extension_formats"));
  CHECK(model.meta.get_string("general.architecture") == "llama");
}

TEST_CASE("descriptions that no reader would take are refused before a file is made") {
  const TempDir dir;
  const auto error_with = [&](std::vector<GgufTensor> tensors, Metadata meta = Metadata("made")) {
    const std::string message = error_of([&] {
      const GgufWriter writer(dir / "out.gguf", meta, std::move(tensors));
      return 0;
    });
    CHECK(files_in(dir) == 0);
    return message;
  };
  const auto f32 = [](std::string name) {
    return apr::gguf_tensor(std::move(name), WeightQuantType::F32, {1});
  };
  CHECK_HAS(error_with({f32("a"), f32("a")}), "tensor 'a' to be written: the name appears twice");
  CHECK_HAS(error_with({f32("")}), "the tensor name is empty");
  CHECK_HAS(error_with({apr::gguf_tensor("a", WeightQuantType::Q4_K, {128})}), "its rows have 128 columns");
  CHECK_HAS(error_with({apr::gguf_tensor("a", WeightQuantType::F32, {})}), "it has 0 dimensions");
  CHECK_HAS(error_with({apr::gguf_tensor("a", WeightQuantType::F32, {1, 1, 1, 1, 1})}),
            "it has 5 dimensions");
  CHECK_HAS(error_with({{"a", WeightQuantType::Q4_K, "q4_k", {256}, {256, 145}}}),
            "is not q4_k, which has 256 in 144");
  CHECK_HAS(error_with({{"a", WeightQuantType::Q4_K, "q5_k", {256}, {256, 144}}}), "format 'q5_k'");
  CHECK_HAS(error_with({{"a", WeightQuantType::Extension, "nodot", {64}, {64, 34}}}),
            "is no name for an extension format");
  CHECK_HAS(error_with({{"a", WeightQuantType::Extension, "v.f", {64}, {64, 34}},
                        {"b", WeightQuantType::Extension, "v.f", {64}, {32, 17}}}),
            "format 'v.f' has blocks of 32 elements in 17 bytes here, and of 64 in 34 in an earlier tensor");
  CHECK_HAS(error_of([] { return apr::gguf_tensor("a", WeightQuantType::Extension, {1}); }),
            "its plugin's to say");
  CHECK_HAS(error_with({apr::gguf_tensor("a", WeightQuantType::F32, {uint64_t{1} << 60}),
                        apr::gguf_tensor("b", WeightQuantType::F32, {uint64_t{1} << 60})}),
            "the file would be too large");
  Metadata odd("made");
  odd.add("general.alignment", uint64_t{12});
  CHECK_HAS(error_with({}, odd), "general.alignment is 12; it must be a power of two");
  Metadata control("made");
  control.add("a\tb", true);
  CHECK_HAS(error_with({}, control), "holds control characters");
}

TEST_CASE("many extension tensors share their format's number") {
  std::vector<GgufTensor> tensors;
  for (int i = 0; i < 10; ++i) {
    tensors.push_back({"t" + std::to_string(i),
                       WeightQuantType::Extension,
                       i % 2 == 0 ? "v.even" : "v.odd",
                       {64},
                       {64, 34}});
  }
  auto file = apr::gguf_header(Metadata("made"), tensors);
  file.resize(file.size() + 9 * 64 + 34);
  const apr::GgufPart part = apr::parse_gguf(file, "made");
  CHECK(part.meta.get_strings("apr.extension_formats") == std::vector<std::string>{"v.even", "v.odd"});
  CHECK(part.tensors[7].format == "v.odd");
  CHECK(part.tensors[8].format == "v.even");
}
