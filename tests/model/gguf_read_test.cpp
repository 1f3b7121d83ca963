#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "core/model/gguf_parse.h"
#include "tests/base/expect_error.h"
#include "tests/model/raw_gguf.h"

using apr::GgufPart;
using apr::MetaType;
using apr::WeightQuantType;
using namespace apr_test;

namespace {

GgufPart parse(const RawGguf& raw) {
  const std::string bytes = raw.bytes();
  return apr::parse_gguf(as_bytes(bytes), "test.gguf");
}
std::string parse_error(const RawGguf& raw) {
  return error_of([&] { return parse(raw); });
}
std::string parse_error(std::string_view bytes) {
  return error_of([&] { return apr::parse_gguf(as_bytes(bytes), "test.gguf"); });
}

}  // namespace

TEST_CASE("tensors point at their bytes, with the declared type") {
  for (const uint32_t version : {2U, 3U}) {
    RawGguf raw = two_tensors();
    raw.version = version;
    const std::string bytes = raw.bytes();
    const GgufPart part = apr::parse_gguf(as_bytes(bytes), "test.gguf");
    REQUIRE(part.tensors.size() == 2);
    const apr::Tensor& a = part.tensors[0];
    CHECK(a.name == "a");
    CHECK(a.qtype == WeightQuantType::F32);
    CHECK(a.format == "f32");
    CHECK(a.dims == std::vector<uint64_t>{64, 3});
    CHECK(a.k() == 64);
    CHECK(a.n() == 3);
    CHECK(a.elements() == 192);
    CHECK(a.bytes == 768);
    const apr::Tensor& b = part.tensors[1];
    CHECK(b.qtype == WeightQuantType::Q4_K);
    CHECK(b.format == "q4_k");
    CHECK(b.bytes == 288);
    const size_t data = bytes.size() - raw.data_bytes;
    CHECK(reinterpret_cast<const char*>(a.data) == bytes.data() + data);
    CHECK(reinterpret_cast<const char*>(b.data) == bytes.data() + data + 768);
    CHECK(data % 32 == 0);
  }
}

TEST_CASE("every numbered type has its published size") {
  for (const WeightQuantType type : apr::well_known_qtypes()) {
    const auto number = apr::gguf_type(type);
    if (!number) continue;
    const auto shape = *apr::geometry(type);
    RawGguf raw;
    raw.tensors = {{"t", {uint64_t{2} * shape.block_elements, 3, 2, 5}, *number, 0}};
    raw.data_bytes = uint64_t{2} * shape.block_bytes * 30;
    const GgufPart part = parse(raw);
    CHECK(part.tensors[0].qtype == type);
    CHECK(part.tensors[0].bytes == raw.data_bytes);
    CHECK(part.tensors[0].n() == 30);
  }
}

TEST_CASE("all metadata types, alone and in arrays") {
  RawGguf raw;
  raw.keys = {
      {"u8", 0, Bytes().u8(255).out},
      {"i8", 1, Bytes().put<int8_t>(-128).out},
      {"u16", 2, Bytes().put<uint16_t>(65535).out},
      {"i16", 3, Bytes().put<int16_t>(-32768).out},
      {"u32", 4, Bytes().u32(4294967295U).out},
      {"i32", 5, Bytes().put<int32_t>(-7).out},
      {"f32", 6, Bytes().put(1e-5F).out},
      {"bool", 7, Bytes().u8(1).out},
      {"string", 8, Bytes().str(std::string_view("a\0b", 3)).out},
      {"u64", 10, Bytes().u64(UINT64_MAX).out},
      {"i64", 11, Bytes().put<int64_t>(INT64_MIN).out},
      {"f64", 12, Bytes().put(0.1).out},
      array_key("a.u8", 0, 3, "\x01\x02\xFF"),
      array_key("a.i8", 1, 2, "\x01\xFF"),
      array_key("a.u16", 2, 1, Bytes().put<uint16_t>(500).out),
      array_key("a.i16", 3, 1, Bytes().put<int16_t>(-500).out),
      array_key("a.u32", 4, 2, Bytes().u32(1).u32(2).out),
      array_key("a.i32", 5, 2, Bytes().put<int32_t>(1).put<int32_t>(-1).out),
      array_key("a.f32", 6, 2, Bytes().put(0.5F).put(-1.5F).out),
      array_key("a.bool", 7, 3, std::string_view("\x01\x00\x01", 3)),
      array_key("a.string", 8, 3, Bytes().str("x").str("").str("zz").out),
      array_key("a.u64", 10, 1, Bytes().u64(9).out),
      array_key("a.i64", 11, 1, Bytes().put<int64_t>(-9).out),
      array_key("a.f64", 12, 1, Bytes().put(0.1).out),
      array_key("a.empty", 8, 0, ""),
  };
  const apr::Metadata meta = parse(raw).meta;
  CHECK(meta.origin() == "test.gguf");
  REQUIRE(meta.entries().size() == raw.keys.size());
  for (size_t i = 0; i < raw.keys.size(); ++i) CHECK(meta.entries()[i].first == raw.keys[i].key);

  CHECK(meta.get_uint("u8", 1000) == 255);
  CHECK(meta.get_uint("u16", 100000) == 65535);
  CHECK(meta.get_uint("u32", UINT64_MAX) == 4294967295U);
  CHECK(meta.get_uint("u64", UINT64_MAX) == UINT64_MAX);
  CHECK(std::get<int64_t>(*meta.find("i8")) == -128);
  CHECK(std::get<int64_t>(*meta.find("i16")) == -32768);
  CHECK(std::get<int64_t>(*meta.find("i32")) == -7);
  CHECK(std::get<int64_t>(*meta.find("i64")) == INT64_MIN);
  CHECK(meta.get_float("f32") == double{1e-5F});
  CHECK(meta.get_float("f64") == 0.1);
  CHECK(meta.get_bool("bool"));
  CHECK(meta.get_string("string") == std::string("a\0b", 3));
  CHECK(meta.get_ints("a.u8") == std::vector<int64_t>{1, 2, 255});
  CHECK(meta.get_ints("a.i8") == std::vector<int64_t>{1, -1});
  CHECK(meta.get_ints("a.u16") == std::vector<int64_t>{500});
  CHECK(meta.get_ints("a.i16") == std::vector<int64_t>{-500});
  CHECK(meta.get_ints("a.u32") == std::vector<int64_t>{1, 2});
  CHECK(meta.get_ints("a.i32") == std::vector<int64_t>{1, -1});
  CHECK(meta.get_floats("a.f32") == std::vector<double>{0.5, -1.5});
  CHECK(meta.get_bools("a.bool") == std::vector<bool>{true, false, true});
  CHECK(meta.get_strings("a.string") == std::vector<std::string>{"x", "", "zz"});
  CHECK(meta.get_ints("a.u64") == std::vector<int64_t>{9});
  CHECK(meta.get_ints("a.i64") == std::vector<int64_t>{-9});
  CHECK(meta.get_floats("a.f64") == std::vector<double>{0.1});
  CHECK(meta.get_strings("a.empty").empty());
  CHECK(meta.stored_type("u16") == MetaType::U16);
  CHECK(meta.stored_type("a.i8") == MetaType::I8);
  CHECK(meta.stored_type("a.string") == MetaType::String);
}

TEST_CASE("files that are no GGUF are named for what they are") {
  CHECK_HAS(parse_error("version https://git-lfs.github.com/spec/v1\noid sha256:"), "Git LFS pointer");
  CHECK_HAS(parse_error("<!DOCTYPE html><html>"), "web page");
  CHECK_HAS(parse_error("PK\x03\x04 and so on"), "ZIP archive");
  CHECK_HAS(parse_error("tjgg\x01\x00\x00\x00"), "before GGUF");
  CHECK_HAS(parse_error(Bytes().u64(100).out + "{\"__metadata__\""), "SafeTensors");
  CHECK_HAS(parse_error("hello, world"), "test.gguf: not a GGUF file: it begins with 'hell'");
  CHECK_HAS(parse_error("\x1b[2J"), "begins with '\\x1B[2J'");
  CHECK_HAS(parse_error("GG"), "begins with 'GG'");
  CHECK_HAS(parse_error(""), "not a GGUF file");
  CHECK_HAS(parse_error("GGUF"), "the version at byte 4 runs past the end of the file (4 bytes)");
}

TEST_CASE("versions: 1, 4 and big-endian are refused by name") {
  RawGguf raw = two_tensors();
  raw.version = 1;
  CHECK_HAS(parse_error(raw), "GGUF version 1 is not supported");
  raw.version = 4;
  CHECK_HAS(parse_error(raw), "GGUF version 4 is not supported; versions 2 and 3 are");
  raw.version = 0;
  CHECK_HAS(parse_error(raw), "version 0");
  raw.version = 0x03000000;
  CHECK_HAS(parse_error(raw), "big-endian");
}

TEST_CASE("absurd counts are refused before anything is allocated for them") {
  RawGguf raw = two_tensors();
  raw.extra_tensors = uint64_t{1} << 60;
  CHECK_HAS(parse_error(raw), "the list of tensors (1152921504606846978 elements");
  raw = two_tensors();
  raw.extra_keys = UINT64_MAX;
  CHECK_HAS(parse_error(raw), "the metadata (18446744073709551615 elements");
  raw = {};
  raw.keys = {array_key("k", 8, uint64_t{1} << 61, "")};
  CHECK_HAS(parse_error(raw), "the value of metadata key 'k' (2305843009213693952 elements");
  raw.keys = {array_key("k", 10, UINT64_MAX, "")};
  CHECK_HAS(parse_error(raw), "metadata key 'k'");
  raw.keys = {{"k", 8, Bytes().u64(UINT64_MAX).out}};
  CHECK_HAS(parse_error(raw), "the value of metadata key 'k' (a string of 18446744073709551615 bytes)");
  raw.keys = {array_key("k", 8, 2, Bytes().str("ok").u64(1000).out)};
  CHECK_HAS(parse_error(raw), "element 1 of the value of metadata key 'k' (a string of 1000 bytes)");
}

TEST_CASE("metadata that no reader could trust") {
  RawGguf raw;
  raw.keys = {u32_key("k", 1), u32_key("k", 2)};
  CHECK_HAS(parse_error(raw), "test.gguf: metadata key 'k' appears twice");
  raw.keys = {{"k", 13, Bytes().u64(0).out}};
  CHECK_HAS(parse_error(raw), "metadata key 'k' has the unknown value type 13 at byte");
  raw.keys = {array_key("k", 77, 1, "aaaaaaaa")};
  CHECK_HAS(parse_error(raw), "metadata key 'k' has the unknown value type 77");
  raw.keys = {array_key("k", 9, 1, Bytes().u32(4).u64(0).out)};
  CHECK_HAS(parse_error(raw), "metadata key 'k' at byte 49 is an array of arrays");
  raw.keys = {{"k", 7, Bytes().u8(2).out}};
  CHECK_HAS(parse_error(raw), "metadata key 'k': the boolean at byte 37 is 2, neither 0 nor 1");
  raw.keys = {array_key("k", 7, 2, "\x01\x05")};
  CHECK_HAS(parse_error(raw), "is 5, neither 0 nor 1");
  raw.keys = {u32_key("", 1)};
  CHECK_HAS(parse_error(raw), "metadata key 0 at byte 24: the key is empty");
  raw.keys = {u32_key("a\nb", 1)};
  CHECK_HAS(parse_error(raw), "the key 'a\\x0Ab' holds control characters");
  raw.keys = {u32_key(std::string(65536, 'k'), 1)};
  CHECK_HAS(parse_error(raw), "the key has 65536 bytes; at most 65535");
}

TEST_CASE("any alignment is obeyed, and a senseless one is an error") {
  for (const uint32_t alignment : {8U, 32U, 64U, 256U, 4096U}) {
    RawGguf raw;
    raw.keys = {u32_key("general.alignment", alignment)};
    raw.alignment = alignment;
    const uint64_t second = (20 + alignment - 1) / alignment * alignment;
    raw.tensors = {{"a", {5}, 0, 0}, {"b", {2}, 0, second}};
    raw.data_bytes = second + 8;
    const std::string bytes = raw.bytes();
    const GgufPart part = apr::parse_gguf(as_bytes(bytes), "test.gguf");
    const auto* start = reinterpret_cast<const std::byte*>(bytes.data());
    CHECK((part.tensors[0].data - start) % alignment == 0);
    CHECK(part.tensors[1].data - part.tensors[0].data == static_cast<std::ptrdiff_t>(second));
  }
  for (const uint32_t alignment : {0U, 1U, 4U, 24U, 33U, 1U << 31}) {
    RawGguf raw = two_tensors();
    raw.keys = {u32_key("general.alignment", alignment)};
    CHECK_HAS(parse_error(raw), "it must be a power of two from 8 to 2097152");
  }
  RawGguf raw = two_tensors();
  raw.keys = {string_key("general.alignment", "32")};
  CHECK_HAS(parse_error(raw), "'general.alignment' is the string '32', not an unsigned integer");
}

TEST_CASE("tensor descriptions that make no sense name the tensor") {
  const auto error_with = [](auto&& change) {
    RawGguf raw = two_tensors();
    change(raw);
    return parse_error(raw);
  };
  CHECK_HAS(error_with([](RawGguf& r) { r.tensors[1].name = "a"; }), "tensor 'a' is listed twice");
  CHECK_HAS(error_with([](RawGguf& r) { r.tensors[1].name = ""; }),
            "tensor 1 at byte 65: the tensor name is empty");
  CHECK_HAS(error_with([](RawGguf& r) { r.tensors[1].name = "x\x1b[0m"; }),
            "'x\\x1B[0m' holds control characters");
  CHECK_HAS(error_with([](RawGguf& r) { r.tensors[1].dims = {}; }),
            "tensor 'b.weight' (described at byte 65): it has 0 dimensions");
  CHECK_HAS(error_with([](RawGguf& r) {
              r.tensors[1].dims = {256, 1, 1, 1, 2};
            }),
            "it has 5 dimensions; 1 to 4");
  CHECK_HAS(error_with([](RawGguf& r) {
              r.tensors[1].dims = {256, 0};
            }),
            "one of its dimensions is 0: [256, 0]");
  CHECK_HAS(error_with([](RawGguf& r) {
              r.tensors[1].dims = {320, 2};
            }),
            "its rows have 320 columns, which is not a multiple of q4_k's block of 256");
  CHECK_HAS(error_with([](RawGguf& r) {
              r.tensors[1].dims = {uint64_t{1} << 32, uint64_t{1} << 32};
            }),
            "more than 2^64 elements");
  CHECK_HAS(error_with([](RawGguf& r) {
              r.tensors[0].dims = {uint64_t{1} << 62, 2};
            }),
            "need more than 2^64 bytes");
  CHECK_HAS(error_with([](RawGguf& r) { r.tensors[1].type = 16; }),
            "its type is 16 (iq2_xxs), which this program does not read");
  CHECK_HAS(error_with([](RawGguf& r) { r.tensors[1].type = 4; }), "its type is 4 (q4_2, removed");
  CHECK_HAS(error_with([](RawGguf& r) { r.tensors[1].type = 4000; }),
            "tensor 'b.weight' (described at byte 65): its type number 4000 is unknown");
  CHECK_HAS(error_with([](RawGguf& r) { r.tensors[1].offset = 770; }),
            "offset 770, which is not a multiple of the alignment 32");
}

TEST_CASE("tensor data must lie in the file, apart, and without holes") {
  const auto error_with = [](auto&& change) {
    RawGguf raw = two_tensors();
    change(raw);
    return parse_error(raw);
  };
  CHECK_HAS(error_with([](RawGguf& r) { r.data_bytes -= 1; }),
            "tensor 'b.weight' (q4_k [256, 2], 288 bytes at offset 768) runs past the end of the file");
  CHECK_HAS(error_with([](RawGguf& r) { r.data_bytes = 0; }), "runs past the end of the file");
  CHECK_HAS(error_with([](RawGguf& r) { r.tensors[1].offset = UINT64_MAX / 32 * 32; }),
            "runs past the end of the file");
  CHECK_HAS(error_with([](RawGguf& r) { r.tensors[1].offset = 736; }),
            "tensor 'b.weight' (q4_k [256, 2], 288 bytes at offset 736) overlaps tensor 'a' (f32 [64, 3], "
            "768 bytes)");
  CHECK_HAS(error_with([](RawGguf& r) { r.tensors[1].offset = 0; }), "overlaps tensor");

  // A wrong type shows as a hole or an overlap, and the error names the tensor.
  CHECK_HAS(error_with([](RawGguf& r) { r.tensors[0].type = 1; }),
            "the file leaves 384 bytes more before it than tensor 'a' (f16 [64, 3], 384 bytes) needs");
  CHECK_HAS(error_with([](RawGguf& r) { r.tensors[1].type = 10; }),
            "follow the last tensor, 'b.weight' (q2_k [256, 2], 168 bytes)");
  CHECK_HAS(error_with([](RawGguf& r) { r.tensors[1].type = 13; }), "runs past the end of the file");
  CHECK_HAS(error_with([](RawGguf& r) { r.tensors = {}; }), "follow the header, which lists no tensor");
  CHECK_HAS(error_with([](RawGguf& r) {
              r.tensors[0].offset = 32;
              r.tensors[1].offset = 800;
              r.data_bytes += 32;
            }),
            "32 bytes before it belong to no tensor");

  // The header's order is not the data's order; and the last tensor may be padded or not.
  RawGguf raw = two_tensors();
  std::swap(raw.tensors[0], raw.tensors[1]);
  CHECK(parse(raw).tensors[0].name == "b.weight");
  raw = {};
  raw.tensors = {{"a", {5}, 0, 0}};
  raw.data_bytes = 20;
  CHECK(parse(raw).tensors.size() == 1);
  raw.data_bytes = 32;
  CHECK(parse(raw).tensors.size() == 1);
  raw.data_bytes = 33;
  CHECK_HAS(parse_error(raw), "1 bytes follow the last tensor, 'a'");
}

TEST_CASE("extension formats: the file says their block, and the name is kept") {
  RawGguf raw;
  const auto numbers = [](uint32_t a, uint32_t b) { return Bytes().u32(a).u32(b).out; };
  raw.keys = {array_key("apr.extension_formats", 8, 2, Bytes().str("vendor.nf4").str("f8_e4m3").out),
              array_key("apr.extension_block_elements", 4, 2, numbers(64, 128)),
              array_key("apr.extension_block_bytes", 4, 2, numbers(34, 132))};
  raw.tensors = {{"a", {128, 2}, 0xA9800000, 0}, {"b", {128}, 0xA9800001, 160}};
  raw.data_bytes = 160 + 132;
  const GgufPart part = parse(raw);
  CHECK(part.tensors[0].qtype == WeightQuantType::Extension);
  CHECK(part.tensors[0].format == "vendor.nf4");
  CHECK(part.tensors[0].bytes == 4 * 34);
  // A well-known format without a GGUF number travels the same way and keeps its type.
  CHECK(part.tensors[1].qtype == WeightQuantType::F8_E4M3);
  CHECK(part.tensors[1].format == "f8_e4m3");

  const auto error_with = [&](auto&& change) {
    RawGguf changed = raw;
    change(changed);
    return parse_error(changed);
  };
  CHECK_HAS(error_with([](RawGguf& r) { r.tensors[1].type += 1; }), "tensor 'b' (described at byte");
  CHECK_HAS(error_with([](RawGguf& r) { r.tensors[1].type += 1; }),
            "its type is extension 2, but apr.extension_formats lists 2 formats");
  CHECK_HAS(error_with([](RawGguf& r) { r.keys.clear(); }),
            "its type is extension 0, but apr.extension_formats lists 0");
  CHECK_HAS(error_with([](RawGguf& r) { r.keys.pop_back(); }), "'apr.extension_block_bytes' is missing");
  CHECK_HAS(error_with([&](RawGguf& r) {
              r.keys[2] = array_key("apr.extension_block_bytes", 4, 1, Bytes().u32(34).out);
            }),
            "has 2 names, but there are 2 block sizes in elements and 1 in bytes");
  CHECK_HAS(error_with([&](RawGguf& r) {
              r.keys[1] = array_key("apr.extension_block_elements", 4, 2, numbers(0, 128));
            }),
            "extension format 'vendor.nf4' has blocks of 0 elements");
  CHECK_HAS(error_with([&](RawGguf& r) {
              r.keys[1] = array_key("apr.extension_block_elements", 5, 2, numbers(0xFFFFFFFF, 128));
            }),
            "has blocks of 0 elements");
  CHECK_HAS(error_with([&](RawGguf& r) {
              r.keys[2] = array_key("apr.extension_block_bytes", 4, 2, numbers(34, 2));
            }),
            "format 'f8_e4m3' has blocks of 128 elements in 132 bytes, but the file says 128 in 2");
  CHECK_HAS(error_with([](RawGguf& r) {
              r.keys[0] = array_key("apr.extension_formats", 8, 2, Bytes().str("q4_k").str("f8_e4m3").out);
            }),
            "'q4_k' cannot be an extension format");
  for (const char* bad : {"nf4", "a.b.c", ".x", "x.", "Vendor.x", "vendor/..", ""}) {
    CHECK_HAS(error_with([&](RawGguf& r) {
                r.keys[0] = array_key("apr.extension_formats", 8, 2, Bytes().str(bad).str("f8_e4m3").out);
              }),
              "is no name for an extension format");
  }
}
