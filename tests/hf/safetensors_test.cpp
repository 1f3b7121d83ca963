// The header of a SafeTensors file: what is read from it, and that no damage gets through.
#include <doctest/doctest.h>

#include <random>

#include "core/model/safetensors.h"
#include "tests/base/expect_error.h"
#include "tests/hf/sample_folder.h"

using apr_test::error_of;
using apr_test::safetensors;

namespace {

std::vector<apr::SafeTensor> parse(const std::string& file) {
  return apr::parse_safetensors(std::as_bytes(std::span(file)), "x.safetensors");
}

std::string refusal(const std::string& header, const std::string& data = "12345678") {
  return error_of([&] { return parse(safetensors(header, data)).size(); });
}

}  // namespace

TEST_CASE("tensors come in the order of their data") {
  const std::string file = safetensors(
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F16","shape":[1,2],"data_offsets":[0,4]},)"
      R"("e":{"dtype":"F32","shape":[0],"data_offsets":[4,4]},"a":{"dtype":"F32","shape":[],"data_offsets":[4,8]}}   )",
      "12345678");
  const auto tensors = parse(file);
  REQUIRE(tensors.size() == 3);
  CHECK(tensors[0].name == "b");
  CHECK(tensors[0].shape == std::vector<uint64_t>{1, 2});
  CHECK(tensors[1].name == "e");
  CHECK(tensors[1].bytes == 0);
  CHECK(tensors[2].dtype == "F32");
  CHECK(static_cast<char>(*tensors[2].data) == '5');
}

TEST_CASE("what is wrong in a header is said, with the file and the tensor") {
  CHECK_HAS(error_of([] { return parse("1234567").size(); }), "x.safetensors: 7 bytes are too few");
  CHECK_HAS(error_of([] { return parse(std::string(8, '\xff') + "{}").size(); }),
            "not a whole SafeTensors file");
  std::string cut = safetensors("{}", "");
  cut.pop_back();
  CHECK_HAS(error_of([&] { return parse(cut).size(); }), "the file has 9");
  CHECK_HAS(refusal(R"([1])", ""), "does not begin with '{'");
  CHECK_HAS(refusal(R"({"a":)", ""), "x.safetensors: header: no valid JSON");
  CHECK_HAS(refusal(R"({"a":{"dtype":"F32","shape":[2]}})"), "tensor 'a': its entry needs");
  CHECK_HAS(refusal(R"({"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}})"),
            "tensor 'a': its dtype 'F33'");
  CHECK_HAS(refusal(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})"), "tensor 'a': the sizes");
  CHECK_HAS(refusal(R"({"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})"), "tensor 'a': the sizes");
  CHECK_HAS(refusal(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})"),
            "F32 of shape [3] takes 12");
  CHECK_HAS(refusal(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})"),
            "tensor 'a': its data (8 to 0)");
  CHECK_HAS(refusal(R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})"), "the file is cut short");
  CHECK_HAS(refusal(R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}})"),
            "beyond all memory");
  CHECK_HAS(refusal(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})"), "4 bytes at the end");
  CHECK_HAS(refusal(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                    R"("b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})"),
            "overlap");
  CHECK_HAS(refusal(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})"), "leave a hole");
  CHECK_HAS(refusal(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                    R"("a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})"),
            "'a' is listed twice");
  CHECK_HAS(refusal("{\"a\":" + std::string(5000, '[') + std::string(5000, ']') + "}"), "nested more than");
}

TEST_CASE("damaged bytes are refused or read, and nothing else") {
  const std::string whole = safetensors(apr_test::SampleFolder().tensors);
  const size_t header = 8 + static_cast<uint8_t>(whole[0]) + 256 * static_cast<uint8_t>(whole[1]);
  std::mt19937 random(1);
  int refused = 0, read = 0;
  const auto attempt = [&](const std::string& file) {
    const std::string copy(file);  // its own allocation, so that a sanitizer sees its end
    try {
      uint64_t sum = 0;
      for (const auto& tensor : parse(copy))
        for (uint64_t i = 0; i < tensor.bytes; ++i) sum += static_cast<uint8_t>(tensor.data[i]);
      ++read;
      CHECK(sum < UINT64_MAX);
    } catch (const apr::Error& e) {
      ++refused;
      CHECK(std::string_view(e.what()).starts_with("x.safetensors"));
    }
  };
  for (size_t length = 0; length < whole.size(); length += 1 + length / 64) attempt(whole.substr(0, length));
  for (int i = 0; i < 3000; ++i) {
    std::string file = whole;
    for (int n = 0; n <= i % 3; ++n) file[random() % header] = static_cast<char>(random());
    attempt(file);
  }
  CHECK(refused > 2000);
  CHECK(read > 0);
}
