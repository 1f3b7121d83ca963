// Every rule of the tables, one at a time: a correct table is changed in one member, and the message must
// name it.
#include <doctest/doctest.h>

#include "core/plugin/library.h"
#include "tests/plugin/scratch.h"

using namespace apr;
using namespace apr::test;

namespace {

void dequantize(const void*, uint64_t, uint64_t, float*) {}
apr_status validate(const void*, uint64_t, uint64_t, apr_error*) { return APR_OK; }
void gemv(const apr_cpu_gemv*) {}
void unpack_float(const void*, uint64_t, uint64_t, float*) {}
void unpack_int(const void*, uint64_t, uint64_t, int8_t*, float*, float*) {}
void split(const void*, uint64_t, uint8_t* const*) {}

// A correct integer format with a codec and two layouts, and a correct plugin around it.
struct Table {
  uint32_t row_bytes[1] = {144};
  uint32_t planar_bytes[3] = {128, 16, 4};
  apr_layout row_major{sizeof(apr_layout), "row_major", "T::RowMajor", 1, row_bytes, nullptr};
  apr_layout planar{sizeof(apr_layout), "planar", "T::Planar", 3, planar_bytes, &split};
  const apr_layout* layouts[2] = {&row_major, &planar};
  apr_codec codec{sizeof(apr_codec), APR_CODEC_INTEGER, "T", "struct T {};", 256, 144, 2, 16, layouts, 2};
  apr_cpu_kernels portable{sizeof(apr_cpu_kernels), APR_ISA_PORTABLE, "derived", &gemv, &gemv, &unpack_int,
                           &unpack_float,           nullptr};
  apr_cpu_kernels avx2{
      sizeof(apr_cpu_kernels), APR_ISA_AVX2, "hand-written", &gemv, nullptr, nullptr, nullptr, nullptr};
  const apr_cpu_kernels* cpu[2] = {&portable, &avx2};
  apr_quant_format format{sizeof(apr_quant_format),
                          "q4_k",
                          "text",
                          12,
                          256,
                          144,
                          16,
                          32,
                          nullptr,
                          &dequantize,
                          &validate,
                          cpu,
                          2,
                          &codec};
  const apr_quant_format* formats[2] = {&format, &format};
  apr_plugin plugin{
      sizeof(apr_plugin), APR_ABI_MAJOR, APR_ABI_MINOR, "sample", "1", "MIT", formats, 1, nullptr, 0};
  Manifest manifest{"/p/plugin.toml", "/p/libsample.so", "sample", PluginKind::Quant, 1, 0, "1", {"q4_k"}};

  std::string error() {
    const std::string message = error_of([this] { check_plugin(plugin, manifest, "/p/libsample.so"); });
    if (!message.empty()) CHECK(message.starts_with("/p/libsample.so: "));
    return message;
  }
};

apr_status devices(uint32_t*, apr_error*) { return APR_OK; }
apr_status open(const apr_device_options*, apr_device**, apr_error*) { return APR_OK; }
void close(apr_device*) {}
apr_status device_info(apr_device*, apr_device_info*, apr_error*) { return APR_OK; }
apr_status bandwidth(apr_device*, double*, apr_error*) { return APR_OK; }
apr_status load(apr_device*, const apr_plan*, const apr_load_options*, apr_session**, apr_error*) {
  return APR_OK;
}
void unload(apr_session*) {}
apr_status step(apr_session*, const apr_batch*, apr_step_output*, apr_error*) { return APR_OK; }
apr_status tap(apr_session*, apr_tap_fn, void*, apr_error*) { return APR_OK; }
apr_status session_info(apr_session*, apr_session_info*, apr_error*) { return APR_OK; }
apr_status kernel(apr_session*, uint32_t, apr_kernel_info*, apr_error*) { return APR_OK; }

struct BackendTable {
  apr_backend backend{sizeof(apr_backend), "cpu",      "text",  &devices, &open,   &close,
                      &device_info,        &bandwidth, &load,   &unload,  &step,   &tap,
                      &session_info,       &kernel,    nullptr, nullptr,  nullptr, nullptr};
  const apr_backend* backends[1] = {&backend};
  apr_plugin plugin{
      sizeof(apr_plugin), APR_ABI_MAJOR, APR_ABI_MINOR, "sample", "1", "MIT", nullptr, 0, backends, 1};
  Manifest manifest{"/p/plugin.toml", "/p/libsample.so", "sample", PluginKind::Backend, 1, 0, "1", {"cpu"}};

  std::string error() {
    return error_of([this] { check_plugin(plugin, manifest, "/p/libsample.so"); });
  }
};

}  // namespace

TEST_CASE("the correct tables pass") {
  CHECK(Table().error() == "");
  CHECK(BackendTable().error() == "");
  Table t;
  t.format.codec = nullptr;  // CPU only
  CHECK(t.error() == "");
}

TEST_CASE("plugin entry") {
  Table t;
  SUBCASE("name") {
    t.plugin.name = nullptr;
    CHECK(has(t.error(), "`name` is null"));
  }
  SUBCASE("license") {
    t.plugin.license = "";
    CHECK(has(t.error(), "`license` is empty"));
  }
  SUBCASE("endless text") {
    const std::string text(5000, 'x');
    t.plugin.version = text.c_str();
    CHECK(has(t.error(), "`version` is longer than"));
  }
  SUBCASE("null list") {
    t.plugin.formats = nullptr;
    CHECK(has(t.error(), "claims 1 formats, but its list is null"));
  }
  SUBCASE("null member") {
    t.formats[0] = nullptr;
    CHECK(has(t.error(), "format 1 of 1 is null"));
  }
  SUBCASE("absurd count") {
    t.plugin.n_formats = 1u << 31;
    CHECK(has(t.error(), "claims 2147483648 formats"));
  }
  SUBCASE("two of one name") {
    t.plugin.n_formats = 2;
    CHECK(has(t.error(), "two formats named 'q4_k'"));
  }
  SUBCASE("larger than this version knows") {
    t.plugin.struct_size += 8;
    CHECK(has(t.error(), "struct_size is"));
  }
  SUBCASE("unlisted format") {
    t.manifest.provides = {"other.x"};
    CHECK(has(t.error(), "provides 'other.x', but the library has only q4_k"));
  }
  SUBCASE("both kinds") {
    BackendTable b;
    t.plugin.backends = b.backends;
    t.plugin.n_backends = 1;
    CHECK(has(t.error(), "has formats and backends"));
  }
}

TEST_CASE("format") {
  Table t;
  SUBCASE("name") {
    t.format.name = nullptr;
    CHECK(has(t.error(), "`name` is null"));
  }
  SUBCASE("name's letters") {
    t.format.name = "Q4 K";
    CHECK(has(t.error(), "that is no name"));
  }
  SUBCASE("own name without dot") {
    t.format.name = "mine";
    t.manifest.provides = {"mine"};
    CHECK(has(t.error(), "a plugin's own format is named \"vendor.name\""));
  }
  SUBCASE("own name with a GGUF number") {
    t.format.name = "my.own";
    CHECK(has(t.error(), "GGUF numbers only well-known types"));
  }
  SUBCASE("'extension' is no name of a format") {
    t.format.name = "extension";
    CHECK(has(t.error(), "vendor.name"));
  }
  SUBCASE("GGUF number") {
    t.format.gguf_type = 13;
    CHECK(has(t.error(), "gguf_type is 13, but this well-known type has 12"));
  }
  SUBCASE("elements") {
    t.format.block_elements = 0;
    CHECK(has(t.error(), "block_elements is 0"));
  }
  SUBCASE("bytes") {
    t.format.block_bytes = 0;
    CHECK(has(t.error(), "block_bytes is 0"));
  }
  SUBCASE("align") {
    for (uint32_t align : {0u, 3u, 32u}) {
      t.format.block_align = align;
      CHECK(has(t.error(), "block_align is"));
    }
  }
  SUBCASE("int_group") {
    t.format.int_group = 24;
    CHECK(has(t.error(), "int_group is 24"));
  }
  SUBCASE("validate") {
    t.format.validate = nullptr;
    CHECK(has(t.error(), "`validate` is null"));
  }
  SUBCASE("no kernels") {
    t.format.n_cpu = 0;
    CHECK(has(t.error(), "has 0 sets of CPU kernels"));
  }
  SUBCASE("no portable kernels") {
    t.cpu[0] = &t.avx2;
    t.format.n_cpu = 1;
    CHECK(has(t.error(), "no CPU kernel set for APR_ISA_PORTABLE"));
  }
  SUBCASE("two sets for one isa") {
    t.avx2.isa = APR_ISA_PORTABLE;
    CHECK(has(t.error(), "two CPU kernel sets have isa 0"));
  }
  SUBCASE("unknown isa") {
    t.avx2.isa = static_cast<apr_isa>(9);
    CHECK(has(t.error(), "unknown isa 9"));
  }
  SUBCASE("null set") {
    t.cpu[1] = nullptr;
    CHECK(has(t.error(), "CPU kernel set 2 of 2 is null"));
  }
  SUBCASE("short set") {
    t.avx2.struct_size = 8;
    CHECK(has(t.error(), "struct_size is 8, but apr_cpu_kernels"));
  }
  SUBCASE("gemv_float") {
    t.portable.gemv_float = nullptr;
    CHECK(has(t.error(), "`gemv_float of the portable CPU kernels` is null"));
  }
  SUBCASE("unpack_float") {
    t.portable.unpack_float = nullptr;
    CHECK(has(t.error(), "`unpack_float of the"));
  }
  SUBCASE("gemv_int") {
    t.portable.gemv_int = nullptr;
    CHECK(has(t.error(), "`gemv_int of the"));
  }
  SUBCASE("unpack_int") {
    t.portable.unpack_int = nullptr;
    CHECK(has(t.error(), "`unpack_int of the"));
  }
  SUBCASE("float codec with integer kernels") {
    t.format.int_group = 0;
    CHECK(has(t.error(), "has gemv_int or unpack_int"));
  }
}

TEST_CASE("codec and layouts") {
  Table t;
  SUBCASE("size") {
    t.codec.struct_size = 4;
    CHECK(has(t.error(), "struct_size is 4, but apr_codec"));
  }
  SUBCASE("kind") {
    t.codec.kind = static_cast<apr_codec_kind>(7);
    CHECK(has(t.error(), "codec kind 7 is unknown"));
  }
  SUBCASE("kind against int_group") {
    t.codec.kind = APR_CODEC_FLOAT;
    CHECK(has(t.error(), "int_group is 32, but the codec is a float codec"));
  }
  SUBCASE("source") {
    t.codec.source = "";
    CHECK(has(t.error(), "the codec's source is empty"));
  }
  SUBCASE("block") {
    t.codec.block = 128;
    CHECK(has(t.error(), "the codec's block of 128 columns"));
  }
  SUBCASE("block bytes") {
    t.codec.block_bytes = 145;
    CHECK(has(t.error(), "the codec's block of 256 columns in 145 bytes"));
  }
  SUBCASE("chunk") {
    t.codec.run = 0;
    CHECK(has(t.error(), "a chunk of 2 runs of 0 columns"));
  }
  SUBCASE("chunk does not divide") {
    t.codec.runs = 3;
    CHECK(has(t.error(), "a chunk of 3 runs of 16 columns"));
  }
  SUBCASE("no layouts") {
    t.codec.n_layouts = 0;
    CHECK(has(t.error(), "the codec has 0 layouts"));
  }
  SUBCASE("null layout") {
    t.layouts[1] = nullptr;
    CHECK(has(t.error(), "layout 2 of 2 is null"));
  }
  SUBCASE("first is not row_major") {
    t.layouts[0] = &t.planar;
    CHECK(has(t.error(), "layouts[0], and only it, must be row_major"));
  }
  SUBCASE("row_major twice") {
    t.layouts[1] = &t.row_major;
    CHECK(has(t.error(), "layouts[0], and only it, must be row_major"));
  }
  SUBCASE("row_major's bytes") {
    t.row_bytes[0] = 128;
    CHECK(has(t.error(), "one plane of the codec's 144 bytes"));
  }
  SUBCASE("split") {
    t.planar.split = nullptr;
    CHECK(has(t.error(), "`split of layout 'planar'` is null"));
  }
  SUBCASE("planes") {
    t.planar.n_planes = 5;
    CHECK(has(t.error(), "layout 'planar' has 5 planes"));
  }
  SUBCASE("plane bytes") {
    t.planar_bytes[2] = 0;
    CHECK(has(t.error(), "layout 'planar': plane 2 has 0 bytes"));
  }
}

TEST_CASE("backend") {
  BackendTable t;
  SUBCASE("size") {
    t.backend.struct_size = 4;
    CHECK(has(t.error(), "struct_size 4, too small to hold its name"));
  }
  SUBCASE("short") {
    t.backend.struct_size = offsetof(apr_backend, kernel);
    CHECK(has(t.error(), "backend 'cpu': struct_size is"));
    t.backend.struct_size = offsetof(apr_backend, templates);  // without what came later
    CHECK(t.error().empty());
  }
  SUBCASE("step") {
    t.backend.step = nullptr;
    CHECK(has(t.error(), "backend 'cpu': `step` is null"));
  }
  SUBCASE("tap") {
    t.backend.tap = nullptr;
    CHECK(has(t.error(), "`tap` is null"));
  }
  SUBCASE("kernel") {
    t.backend.kernel = nullptr;
    CHECK(has(t.error(), "`kernel` is null"));
  }
  SUBCASE("description") {
    t.backend.description = nullptr;
    CHECK(has(t.error(), "`description` is null"));
  }
}
