#include "plugins/backend-cuda/prebuilt.h"

#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/base/sha256.h"
#include "plugins/backend-cuda/failure.h"
#include "plugins/backend-cuda/spec.h"

namespace apr::cuda {

namespace fs = std::filesystem;

std::string generic_interface() {
  return sha256_hex(args_header() + "\n" + codec_contract() + "\n" + std::to_string(sizeof(GenericShape)))
      .substr(0, 16);
}

std::string generic_name(const KernelSpec& spec) {
  const std::string op = to_string(spec.op);
  return spec.segments.empty() ? op : op + "." + spec.segments[0].format;
}

GenericShape generic_shape(const KernelSpec& spec) {
  const auto constant = [&](const char* name) {
    for (const Constant& c : spec.constants)
      if (c.name == name) return static_cast<int32_t>(c.value);
    return 0;
  };
  GenericShape shape{};
  shape.k = static_cast<int32_t>(spec.k);
  shape.n = spec.segments.empty() ? constant("kN") : static_cast<int32_t>(spec.segments[0].n);
  shape.bias = spec.segments.empty() ? 0 : spec.segments[0].bias;
  shape.groups = constant("kGroups");
  shape.heads = constant("kHeads");
  shape.kv_heads = constant("kKvHeads");
  shape.head_dim = constant("kHeadDim");
  shape.rope_dims = constant("kRopeDims");
  shape.rope_kind = constant("kRopeKind");
  shape.window = constant("kWindow");
  shape.top_k = constant("kTopK");
  if (shape.head_dim > 256)
    throw failure(APR_UNSUPPORTED,
                  "heads of {} columns: kernels built with the program have at most 256; install NVRTC",
                  shape.head_dim);
  return shape;
}

Program lower_generic(const apr_plan& plan, uint32_t m, bool head, uint32_t n_top) {
  // As for one token, unfused and in floats: nothing in such a program depends on the number of rows.
  LowerOptions options{.fuse = false, .precise = true, .n_top = n_top};
  Program program = lower(plan, 1, head, options);
  program.m = m;
  for (Step& step : program.steps)
    for (SegmentSpec& segment : step.spec.segments) segment.layout = segment.codec->layouts[0];
  return program;
}

std::string prebuilt_folder(const std::string& template_folder) {
  return (fs::path(template_folder).parent_path() / "ptx-generic").string();
}

KernelImage load_prebuilt(const std::string& folder, const KernelSpec& spec) {
  const std::string name = generic_name(spec), file = folder + "/" + name + ".ptx";
  std::ifstream in(file, std::ios::binary);
  std::ostringstream text;
  if (in) text << in.rdbuf();
  if (!in) {
    if (!spec.segments.empty() && fs::is_directory(folder))
      throw failure(APR_UNSUPPORTED,
                    "format {} has no kernel that was built with the program ({} is missing); install NVRTC",
                    spec.segments[0].format, file);
    throw failure(APR_UNSUPPORTED, "no kernels were built with the program ({} is missing); install NVRTC",
                  file);
  }
  KernelImage image{"", std::move(text).str()};
  const std::string first = image.ptx.substr(0, image.ptx.find('\n'));
  if (!first.ends_with("interface " + generic_interface()))
    throw Error("{}: it belongs to another version of the program; build or install again", file);
  return image;
}

}  // namespace apr::cuda
