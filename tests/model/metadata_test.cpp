#include "core/model/metadata.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "tests/base/expect_error.h"

using apr::MetaArray;
using apr::Metadata;
using apr::MetaType;
using apr_test::error_of;

namespace {

Metadata sample() {
  Metadata meta("m.gguf");
  meta.add("uint", uint64_t{42});
  meta.add("int", int64_t{-3});
  meta.add("positive", int64_t{7});
  meta.add("float", 0.5);
  meta.add("bool", true);
  meta.add("string", std::string("text"));
  meta.add("uints", MetaArray(std::vector<uint64_t>{1, 2}));
  meta.add("ints", MetaArray(std::vector<int64_t>{-1, 2}));
  meta.add("floats", MetaArray(std::vector<double>{0.5, 2}));
  meta.add("bools", MetaArray(std::vector<bool>{true, false}));
  meta.add("strings", MetaArray(std::vector<std::string>{"a", "b"}));
  return meta;
}

}  // namespace

TEST_CASE("values are given back by type, integers of either sign where they fit") {
  const Metadata meta = sample();
  CHECK(meta.get_uint("uint", 42) == 42);
  CHECK(meta.get_uint("positive", 100) == 7);
  CHECK(meta.get_float("float") == 0.5);
  CHECK(meta.get_float("uint") == 42);
  CHECK(meta.get_float("int") == -3);
  CHECK(meta.get_bool("bool"));
  CHECK(meta.get_string("string") == "text");
  CHECK(meta.get_strings("strings")[1] == "b");
  CHECK(meta.get_floats("floats") == std::vector<double>{0.5, 2});
  CHECK(meta.get_floats("uints") == std::vector<double>{1, 2});
  CHECK(meta.get_floats("ints") == std::vector<double>{-1, 2});
  CHECK(meta.get_ints("uints") == std::vector<int64_t>{1, 2});
  CHECK(meta.get_bools("bools") == std::vector<bool>{true, false});
  CHECK(meta.has("uint"));
  CHECK_FALSE(meta.has("nothing"));
  CHECK(meta.find("nothing") == nullptr);
}

TEST_CASE("errors name the file, the key and both types") {
  const Metadata meta = sample();
  CHECK_HAS(error_of([&] { return meta.get_uint("none", 1); }), "m.gguf: metadata key 'none' is missing");
  CHECK_HAS(error_of([&] { return meta.get_uint("string", 1); }),
            "m.gguf: metadata key 'string' is the string 'text', not an unsigned integer");
  CHECK_HAS(error_of([&] { return meta.get_uint("float", 1); }), "is the float 0.5, not an unsigned integer");
  CHECK_HAS(error_of([&] { return meta.get_uint("int", 1); }), "'int' is -3: it must not be negative");
  CHECK_HAS(error_of([&] { return meta.get_uint("uint", 41); }), "'uint' is 42: at most 41 makes sense");
  CHECK_HAS(error_of([&] { return meta.get_float("bool"); }), "is the boolean true, not a float");
  CHECK_HAS(error_of([&] { return meta.get_bool("uint"); }), "is the unsigned integer 42, not a boolean");
  CHECK_HAS(error_of([&] { return meta.get_string("strings"); }), "is an array of 2 strings, not a string");
  CHECK_HAS(error_of([&] { return meta.get_strings("ints"); }),
            "is an array of 2 integers, not an array of strings");
  CHECK_HAS(error_of([&] { return meta.get_strings("string"); }), "not an array of strings");
  CHECK_HAS(error_of([&] { return meta.get_floats("bools"); }),
            "is an array of 2 booleans, not an array of floats");
  CHECK_HAS(error_of([&] { return meta.get_ints("floats"); }),
            "is an array of 2 floats, not an array of integers");
  CHECK_HAS(error_of([&] { return meta.get_bools("uints"); }), "is an array of 2 unsigned integers, not");
  Metadata big("m.gguf");
  big.add("k", MetaArray(std::vector<uint64_t>{0, UINT64_MAX}));
  CHECK_HAS(error_of([&] { return big.get_ints("k"); }), "element 1 is 18446744073709551615: too large");
}

TEST_CASE("optional values: absent is no error, another type is") {
  const Metadata meta = sample();
  CHECK_FALSE(meta.find_uint("none", 1).has_value());
  CHECK_FALSE(meta.find_float("none").has_value());
  CHECK_FALSE(meta.find_bool("none").has_value());
  CHECK_FALSE(meta.find_string("none").has_value());
  CHECK(meta.find_uint("uint", 100) == 42);
  CHECK(meta.find_string("string") == "text");
  CHECK(meta.get_uint_or("none", 1, 9) == 9);
  CHECK(meta.get_uint_or("uint", 100, 9) == 42);
  CHECK(meta.get_float_or("none", 1.5) == 1.5);
  CHECK(meta.get_bool_or("none", true));
  CHECK(meta.get_string_or("none", "x") == "x");
  CHECK_HAS(error_of([&] { return meta.get_uint_or("string", 1, 9); }), "not an unsigned integer");
  CHECK_HAS(error_of([&] { return meta.find_bool("float"); }), "not a boolean");
}

TEST_CASE("keys keep their order; a second one of a name is refused; set and erase") {
  Metadata meta = sample();
  CHECK(meta.entries()[2].first == "positive");
  CHECK_HAS(error_of([&] {
              meta.add("uint", true);
              return 0;
            }),
            "m.gguf: metadata key 'uint' appears twice");
  CHECK(meta.get_uint("uint", 100) == 42);

  meta.set("uint", std::string("now a string"));
  CHECK(meta.entries()[0].first == "uint");
  CHECK(meta.get_string("uint") == "now a string");
  CHECK(meta.stored_type("uint") == MetaType::String);

  meta.erase("int");
  meta.erase("no such key");
  CHECK_FALSE(meta.has("int"));
  CHECK(meta.entries()[1].first == "positive");
  for (const auto& [key, value] : meta.entries()) CHECK(meta.find(key) == &value);
  meta.add("int", true);
  CHECK(meta.get_bool("int"));
  CHECK(meta.entries().back().first == "int");
  meta.set("new", 1.5);
  CHECK(meta.get_float("new") == 1.5);
}

TEST_CASE("a copy does not share anything") {
  Metadata meta = sample();
  const Metadata copy = meta;
  meta.set("string", std::string("changed"));
  meta.erase("uint");
  CHECK(copy.get_string("string") == "text");
  CHECK(copy.get_uint("uint", 100) == 42);
}

TEST_CASE("the stored type is the usual one that holds every value") {
  Metadata meta;
  const auto stored = [&](apr::MetaValue value) {
    meta.set("k", std::move(value));
    return meta.stored_type("k");
  };
  CHECK(stored(uint64_t{4294967295U}) == MetaType::U32);
  CHECK(stored(uint64_t{4294967296U}) == MetaType::U64);
  CHECK(stored(int64_t{-2147483648LL}) == MetaType::I32);
  CHECK(stored(int64_t{2147483648LL}) == MetaType::I64);
  CHECK(stored(double{1e-5F}) == MetaType::F32);
  CHECK(stored(0.1) == MetaType::F64);
  CHECK(stored(std::numeric_limits<double>::quiet_NaN()) == MetaType::F32);
  CHECK(stored(std::numeric_limits<double>::infinity()) == MetaType::F32);
  CHECK(stored(true) == MetaType::Bool);
  CHECK(stored(std::string("s")) == MetaType::String);
  CHECK(stored(MetaArray(std::vector<uint64_t>{1, 4294967296U})) == MetaType::U64);
  CHECK(stored(MetaArray(std::vector<int64_t>{})) == MetaType::I32);
  CHECK(stored(MetaArray(std::vector<std::string>{})) == MetaType::String);
  CHECK_HAS(error_of([&] { return meta.stored_type("none"); }), "'none' is missing");
}

TEST_CASE("a stored type that cannot hold the value is refused") {
  const auto add = [](apr::MetaValue value, MetaType stored) {
    return error_of([&] {
      Metadata meta("m.gguf");
      meta.add("k", std::move(value), stored);
      return 0;
    });
  };
  CHECK(add(uint64_t{255}, MetaType::U8) == "(no error)");
  CHECK_HAS(add(uint64_t{256}, MetaType::U8),
            "metadata key 'k' is the unsigned integer 256: it cannot be stored as u8");
  CHECK_HAS(add(uint64_t{1}, MetaType::I32), "cannot be stored as i32");
  CHECK_HAS(add(int64_t{-129}, MetaType::I8), "cannot be stored as i8");
  CHECK_HAS(add(1e300, MetaType::F32), "cannot be stored as f32");
  CHECK(add(0.1, MetaType::F32) == "(no error)");  // loses digits only
  CHECK_HAS(add(true, MetaType::U8), "cannot be stored as u8");
  CHECK_HAS(add(std::string("s"), MetaType::Array), "cannot be stored as array");
  CHECK_HAS(add(MetaArray(std::vector<uint64_t>{1, 70000}), MetaType::U16),
            "an array of 2 unsigned integers: it cannot be stored as u16");
  CHECK_HAS(add(MetaArray(std::vector<int64_t>{}), MetaType::String), "cannot be stored as string");
}
