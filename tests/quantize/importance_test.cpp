// Importance matrices: both forms of file give the same weights; damaged ones are errors.
#include <doctest/doctest.h>

#include <cstring>

#include "core/model/gguf_writer.h"
#include "core/quantize/importance.h"
#include "tests/base/expect_error.h"
#include "tests/base/temp_dir.h"

namespace {

using namespace apr;
using apr_test::error_of;
using apr_test::TempDir;

template <typename T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

std::string legacy(const std::vector<float>& values, int32_t calls) {
  std::string out;
  put<int32_t>(out, 1);
  put<int32_t>(out, 5);
  out += "a.wgt";
  put<int32_t>(out, calls);
  put<int32_t>(out, static_cast<int32_t>(values.size()));
  for (const float value : values) put(out, value);
  put<int32_t>(out, 7);
  put<int32_t>(out, 4);
  return out + "text";
}

Tensor tensor_of(uint64_t k) { return {"a.wgt", WeightQuantType::F32, "f32", {k, 2}, nullptr, 0, 0}; }

}  // namespace

TEST_CASE("the older form and GGUF give the mean square of each column") {
  const TempDir dir;
  const Importance old = Importance::read(dir.write("i.dat", legacy({4.0f, 8.0f, 0.0f, 12.0f}, 4)));
  Metadata meta("made");
  meta.add("general.type", std::string("imatrix"));
  meta.add("imatrix.chunk_count", uint64_t{7});
  meta.add("imatrix.datasets", MetaArray(std::vector<std::string>{"text"}));
  {
    GgufWriter writer(dir / "i.gguf", meta,
                      {gguf_tensor("a.wgt.in_sum2", WeightQuantType::F32, {4, 1}),
                       gguf_tensor("a.wgt.counts", WeightQuantType::F32, {1, 1})});
    const float sums[] = {4.0f, 8.0f, 0.0f, 12.0f}, counts[] = {4.0f};
    writer.append(std::as_bytes(std::span(sums)));
    writer.append(std::as_bytes(std::span(counts)));
    writer.finish();
  }
  const Importance gguf = Importance::read(dir / "i.gguf");
  for (const Importance* each : {&old, &gguf}) {
    CHECK(each->dataset() == "text");
    CHECK(each->chunks() == 7);
    const std::vector<float>* values = each->find(tensor_of(4));
    REQUIRE(values != nullptr);
    CHECK((*values)[0] == 1.0f);
    CHECK((*values)[3] == 3.0f);
    CHECK((*values)[2] > 0.0f);  // a column that was never used still counts a little
    CHECK((*values)[2] < 1e-4f);
  }
  CHECK_HAS(error_of([&] { return old.find(tensor_of(8)) != nullptr; }),
            "has 4 values, but the tensor has 8 columns");
}

TEST_CASE("damaged importance is refused") {
  const TempDir dir;
  const std::string good = legacy({1.0f, 2.0f}, 1);
  for (size_t cut : {size_t{2}, size_t{6}, size_t{15}, size_t{20}, good.size() - 2}) {
    CAPTURE(cut);
    CHECK(error_of([&] { return Importance::read(dir.write("i.dat", good.substr(0, cut))).entries(); }) !=
          "(no error)");
  }
  CHECK_HAS(error_of([&] { return Importance::read(dir.write("i.dat", legacy({-1.0f}, 1))).entries(); }),
            "not negative");
  CHECK_HAS(error_of([&] { return Importance::read(dir.write("i.dat", legacy({0.0f}, 1))).entries(); }),
            "no importance");
}
