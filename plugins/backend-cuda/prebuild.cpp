// Build-time tool: compiles ptx-templates/generic to PTX, for every format of the quant plugins that are named.
//   apr-cuda-prebuild TEMPLATE_FOLDER OUTPUT_FOLDER PLUGIN.so...
// Where there is no NVRTC it says so and leaves an empty folder: then the program needs NVRTC at run time.
#include <fmt/format.h>

#include <boost/dll/shared_library.hpp>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "apr/abi.h"
#include "core/base/error.h"
#include "plugins/backend-cuda/compiler.h"
#include "plugins/backend-cuda/prebuilt.h"
#include "plugins/backend-cuda/spec.h"

namespace fs = std::filesystem;
using namespace apr;
using namespace apr::cuda;

namespace {

std::string read(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  if (!in) throw Error("{}: cannot be read", file.string());
  return std::move(text).str();
}

struct Tool {
  const Nvrtc& compiler;
  fs::path templates, output;
  std::vector<NamedText> headers;

  // prelude: what stands before the file; layout: for the first line, which tools and tests read.
  void build(const std::string& name, const std::string& file, const std::string& prelude,
             const std::string& layout, const std::vector<NamedText>& more) {
    std::vector<NamedText> all = headers;
    all.insert(all.end(), more.begin(), more.end());
    const std::string source =
        prelude + fmt::format("#line 1 \"generic/{}\"\n", file) + read(templates / "generic" / file);
    // sm_80 is the least architecture of the specialised kernels too; newer devices run its PTX.
    const Compiled compiled = compile(compiler, "generic/" + file, source, all,
                                      {"--gpu-architecture=compute_80", "-std=c++20", "-default-device"});
    std::ofstream out(output / (name + ".ptx"), std::ios::binary | std::ios::trunc);
    out << fmt::format("// apr generic: {} {}interface {}\n", name, layout.empty() ? "" : layout + " ",
                       generic_interface())
        << compiled.ptx;
    if (!out) throw Error("{}: cannot be written", (output / (name + ".ptx")).string());
  }
};

int run(int argc, char** argv) {
  if (argc < 3) throw usage_error("usage: apr-cuda-prebuild TEMPLATE_FOLDER OUTPUT_FOLDER PLUGIN.so...");
  const fs::path templates = argv[1], output = argv[2];
  fs::remove_all(output);
  fs::create_directories(output);
  const NvrtcSearch& search = nvrtc(0);
  if (search.library == nullptr) {
    fmt::print("no kernels are built with the program: {}\n", search.reason);
    return 0;
  }
  Tool tool{*search.library, templates, output, {}};
  tool.headers = {{"apr/codec.h", codec_contract()}, {"args.h", args_header()}};
  for (const char* name : {"generic.h", "shape.h", "tile_rope.h"})
    tool.headers.push_back({name, read(templates / "generic" / name)});
  for (const char* op : {"rms_norm", "rope", "rope_kv", "attention", "argmax", "top_k"})
    tool.build(op, std::string(op) + ".cu", "", "", {});
  for (const auto& [op, number] : {std::pair{"add", 0}, {"swiglu", 1}, {"gather", 2}})
    tool.build(
        op, "elementwise.cu",
        fmt::format("namespace apr::spec {{ enum {{ kAdd, kSwiglu, kGather }}; constexpr int kOp = {}; }}\n",
                    number),
        "", {});
  int formats = 0;
  for (int i = 3; i < argc; ++i) {
    const boost::dll::shared_library library(fs::absolute(argv[i]).string());
    const auto& plugin = library.get<const apr_plugin>(APR_PLUGIN_SYMBOL);
    for (uint32_t f = 0; f < plugin.n_formats; ++f) {
      const apr_quant_format& format = *plugin.formats[f];
      if (format.codec == nullptr) continue;
      const apr_codec& codec = *format.codec;
      const std::string layout = codec.layouts[0]->cpp_type;
      const std::string prelude = fmt::format(
          "#include \"codec/{}.h\"\nnamespace apr::spec {{ using Codec = {}; using Layout = {}; }}\n",
          format.name, codec.cpp_type, layout);
      for (const char* op : {"embed", "linear"})
        tool.build(fmt::format("{}.{}", op, format.name), std::string(op) + ".cu", prelude, layout,
                   {{fmt::format("codec/{}.h", format.name), codec.source}});
      ++formats;
    }
  }
  fmt::print("generic kernels for {} formats in {}\n", formats, output.string());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    fmt::print(stderr, "apr-cuda-prebuild: {}\n", e.what());
    return 1;
  }
}
