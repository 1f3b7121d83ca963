// Every codec's text, as the library carries it, through NVRTC: each layout's load and decode in a small
// kernel, for the oldest and the newest architectures. No GPU is needed. Exits 77, with a line, where
// libnvrtc cannot be opened.
#define DOCTEST_CONFIG_IMPLEMENT
#include <dlfcn.h>
#include <doctest/doctest.h>

#include <cstdio>
#include <exception>
#include <fstream>
#include <iterator>

#include "formats_under_test.h"

namespace {

using namespace apr::test;

// The few functions that are used, as nvrtc.h declares them.
struct Nvrtc {
  using Program = void*;
  int (*create)(Program*, const char* source, const char* name, int n_headers, const char* const* headers,
                const char* const* include_names);
  int (*compile)(Program, int n_options, const char* const* options);
  int (*log_size)(Program, size_t*);
  int (*log)(Program, char*);
  int (*cubin_size)(Program, size_t*);
  int (*destroy)(Program*);

  bool open() {
    void* library = nullptr;
    for (const char* name :
         {"libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12", "/usr/local/cuda/lib64/libnvrtc.so"})
      if (!library) library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!library) return false;
    const auto get = [&](auto& function, const char* symbol) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, symbol));
      return function != nullptr;
    };
    return get(create, "nvrtcCreateProgram") && get(compile, "nvrtcCompileProgram") &&
           get(log_size, "nvrtcGetProgramLogSize") && get(log, "nvrtcGetProgramLog") &&
           get(cubin_size, "nvrtcGetCUBINSize") && get(destroy, "nvrtcDestroyProgram");
  }
};

Nvrtc nvrtc;
std::string codec_header;  // the text of apr/codec.h

// Chunk by chunk to floats: what dequantize does, with every function of the codec that device code uses.
std::string kernel_for(const apr_codec& codec, const apr_layout& layout) {
  std::string planes;
  for (uint32_t p = 0; p < layout.n_planes; ++p)
    planes += (p ? ", " : "") +
              ("p" + std::to_string(p) + " + block * " + std::to_string(layout.plane_bytes[p]) + "ull");
  std::string arguments;
  for (uint32_t p = 0; p < layout.n_planes; ++p) arguments += "const uint8_t* p" + std::to_string(p) + ", ";
  const bool integer = codec.kind == APR_CODEC_INTEGER;
  return "#include \"apr/codec.h\"\n#include \"codec/it.h\"\n"
         "using C = " +
         std::string(codec.cpp_type) + ";\nusing L = " + layout.cpp_type +
         ";\n"
         "extern \"C\" __global__ void decode(" +
         arguments +
         "float* out) {\n"
         "  const unsigned long long i = blockIdx.x * 256ull + threadIdx.x;\n"
         "  constexpr int kChunks = C::kBlock / (C::kRuns * C::kRun);\n"
         "  const unsigned long long block = i / kChunks;\n  const int chunk = static_cast<int>(i % "
         "kChunks);\n"
         "  const auto raw = L::load(apr::Planes<L::kPlanes>{{" +
         planes +
         "}}, chunk);\n"
         "  apr::" +
         (integer ? "Int" : "Float") +
         "Chunk<C::kRuns, C::kRun> values;\n  L::decode(raw, chunk, values);\n"
         "  for (int r = 0; r < C::kRuns; ++r)\n    for (int c = 0; c < C::kRun; ++c)\n"
         "      out[block * C::kBlock + C::col(chunk, r) + c] = " +
         (integer ? "apr::chunk_value<C::kOffset>(values, r, c)" : "values.v[r][c]") + ";\n}\n";
}

void compile(const apr_quant_format& format, const apr_layout& layout, const char* arch) {
  const std::string source = kernel_for(*format.codec, layout),
                    option = "--gpu-architecture=" + std::string(arch);
  const char* headers[] = {codec_header.c_str(), format.codec->source};
  const char* names[] = {"apr/codec.h", "codec/it.h"};
  const char* options[] = {option.c_str(), "--std=c++20", "-default-device"};
  Nvrtc::Program program = nullptr;
  REQUIRE(nvrtc.create(&program, source.c_str(), format.name, 2, headers, names) == 0);
  const int status = nvrtc.compile(program, 3, options);
  size_t size = 0;
  REQUIRE(nvrtc.log_size(program, &size) == 0);
  std::string log(size, 0);
  nvrtc.log(program, log.data());
  // A warning in a codec would be repeated for every kernel that a user compiles.
  CHECK_MESSAGE((status == 0 && size <= 1), std::string(format.name) << " " << std::string(layout.name) << " "
                                                                     << std::string(arch) << ":\n"
                                                                     << log);
  size_t cubin = 0;
  if (status == 0) CHECK(nvrtc.cubin_size(program, &cubin) == 0);
  CHECK(cubin > 0);
  nvrtc.destroy(&program);
}

}  // namespace

TEST_CASE("NVRTC compiles every codec in every layout") {
  for (const auto* f : formats())
    for (uint32_t i = 0; i < f->codec->n_layouts; ++i)
      for (const char* arch : {"sm_80", "sm_90a", "sm_100"}) compile(*f, *f->codec->layouts[i], arch);
}

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    try {
      if (argument.ends_with(".so")) add_plugin(argument);
    } catch (const std::exception& e) {
      std::fprintf(stderr, "test_quant_nvrtc: %s\n", e.what());
      return 1;
    }
    if (argument.ends_with("codec.h")) {
      std::ifstream file(argument);
      codec_header.assign(std::istreambuf_iterator<char>(file), {});
    }
  }
  if (formats().empty() || codec_header.empty()) {
    std::fprintf(stderr, "usage: test_quant_nvrtc include/apr/codec.h LIBRARY.so...\n");
    return 2;
  }
  if (!nvrtc.open()) {
    std::puts("skipped: libnvrtc cannot be opened, so the codecs were not compiled for a GPU");
    return 77;
  }
  doctest::Context context(argc, argv);
  return context.run();
}
