#include <doctest/doctest.h>

#include <map>
#include <set>
#include <string>

#include "core/dispatch/visit.h"
#include "core/dispatch/weight_quant_type.h"
#include "tests/base/expect_error.h"

using apr::WeightQuantType;

namespace {

struct Facts {
  uint32_t block_elements;
  uint32_t block_bytes;
  int gguf;  // -1: not numbered
};

// Written down a second time, from the published definitions, so that a slip in the program's switches shows.
const std::map<std::string, Facts> kFacts{
    {"f32", {1, 4, 0}},          {"f16", {1, 2, 1}},          {"bf16", {1, 2, 30}},
    {"f8_e4m3", {128, 132, -1}}, {"f8_e5m2", {128, 132, -1}}, {"q4_0", {32, 18, 2}},
    {"q4_1", {32, 20, 3}},       {"q5_0", {32, 22, 6}},       {"q5_1", {32, 24, 7}},
    {"q8_0", {32, 34, 8}},       {"q2_k", {256, 84, 10}},     {"q3_k", {256, 110, 11}},
    {"q4_k", {256, 144, 12}},    {"q5_k", {256, 176, 13}},    {"q6_k", {256, 210, 14}},
    {"iq4_nl", {32, 18, 20}},    {"iq4_xs", {256, 136, 23}},  {"mxfp4", {32, 17, 39}},
};

}  // namespace

TEST_CASE("names, block sizes and GGUF numbers are the published ones") {
  const auto types = apr::well_known_qtypes();
  CHECK(types.size() == kFacts.size());
  for (const WeightQuantType type : types) {
    const std::string type_name(name(type));
    CAPTURE(type_name);
    REQUIRE(kFacts.count(type_name) == 1);
    const Facts& facts = kFacts.at(type_name);
    const auto shape = geometry(type);
    REQUIRE(shape.has_value());
    CHECK(shape->block_elements == facts.block_elements);
    CHECK(shape->block_bytes == facts.block_bytes);
    CHECK(apr::gguf_type(type).has_value() == (facts.gguf >= 0));
    if (facts.gguf >= 0) {
      CHECK(apr::gguf_type(type) == static_cast<uint32_t>(facts.gguf));
      CHECK(apr::qtype_of_gguf(static_cast<uint32_t>(facts.gguf)) == type);
    }
    CHECK(apr::parse_qtype(type_name) == type);
  }
}

TEST_CASE("an extension has no geometry and no number of its own") {
  CHECK(name(WeightQuantType::Extension) == "extension");
  CHECK_FALSE(geometry(WeightQuantType::Extension).has_value());
  CHECK_FALSE(apr::gguf_type(WeightQuantType::Extension).has_value());
}

TEST_CASE("what SafeTensors hold") {
  const std::map<std::string, WeightQuantType> dtypes{{"F32", WeightQuantType::F32},
                                                      {"F16", WeightQuantType::F16},
                                                      {"BF16", WeightQuantType::BF16},
                                                      {"F8_E4M3", WeightQuantType::F8_E4M3},
                                                      {"F8_E5M2", WeightQuantType::F8_E5M2}};
  for (const auto& [dtype, type] : dtypes) CHECK(apr::qtype_of_safetensors(dtype) == type);
  for (const char* dtype : {"F64", "I8", "bf16", "F8_E8M0", ""})
    CHECK_FALSE(apr::qtype_of_safetensors(dtype));
  for (const WeightQuantType type : apr::well_known_qtypes()) {
    const auto dtype = apr::safetensors_dtype(type);
    if (dtype) CHECK(dtypes.at(std::string(*dtype)) == type);
    const auto block = apr::scaled_block(type);
    if (!block) continue;
    // The elements and a float32 scale are the whole block.
    const auto shape = geometry(type);
    CHECK(shape->block_elements == block->elements);
    CHECK(shape->block_bytes == block->elements * block->element_bytes + 4);
  }
  CHECK(apr::scaled_block(WeightQuantType::F8_E4M3));
  CHECK(apr::scaled_block(WeightQuantType::F8_E5M2));
  CHECK_FALSE(apr::scaled_block(WeightQuantType::Q8_0));
}

TEST_CASE("look-ups never guess") {
  CHECK(apr::parse_qtype("Q4_K") == WeightQuantType::Q4_K);
  CHECK(apr::parse_qtype("bF16") == WeightQuantType::BF16);
  for (const char* text : {"", "q4", "q4_k_m", "q4_k ", "extension", "Extension", "vendor.nf4", "f8"}) {
    CAPTURE(text);
    CHECK_FALSE(apr::parse_qtype(text).has_value());
  }
  // Not numbers of ggml, or numbers of types that are no weight formats here.
  for (const uint32_t number : {4U, 5U, 9U, 15U, 16U, 24U, 31U, 40U, 1000U, 0xA9800000U, 0xFFFFFFFFU}) {
    CAPTURE(number);
    CHECK_FALSE(apr::qtype_of_gguf(number).has_value());
  }
}

TEST_CASE("visit gives every type its own constant") {
  std::set<WeightQuantType> seen;
  auto types = apr::well_known_qtypes();
  types.push_back(WeightQuantType::Extension);
  for (const WeightQuantType type : types) {
    const WeightQuantType got = apr::visit(type, [](auto constant) {
      constexpr WeightQuantType kType = decltype(constant)::value;  // usable at compile time
      return kType;
    });
    CHECK(got == type);
    seen.insert(got);
  }
  CHECK(seen.size() == types.size());
}

TEST_CASE("visit passes the callable's state and result on") {
  int calls = 0;
  const auto count = [&calls](auto) -> int& { return ++calls, calls; };
  int& result = apr::visit(WeightQuantType::Q8_0, count);
  CHECK(&result == &calls);
  CHECK(calls == 1);
}

TEST_CASE("a number that is no enumerator is an error, not undefined") {
  const auto bad = static_cast<WeightQuantType>(200);
  CHECK_HAS(apr_test::error_of([&] { return name(bad); }), "200 is not a WeightQuantType");
  CHECK_HAS(apr_test::error_of([&] { return geometry(bad); }), "200 is not a WeightQuantType");
  CHECK_HAS(apr_test::error_of([&] { return apr::gguf_type(bad); }), "200 is not a WeightQuantType");
  CHECK_HAS(apr_test::error_of([&] { return apr::visit(bad, [](auto) { return 0; }); }),
            "200 is not a WeightQuantType");
}
