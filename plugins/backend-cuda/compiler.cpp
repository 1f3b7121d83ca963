#include "plugins/backend-cuda/compiler.h"

#include <fmt/format.h>
#include <glob.h>

#include <boost/dll/runtime_symbol_info.hpp>
#include <boost/dll/shared_library.hpp>
#include <cstdlib>
#include <filesystem>
#include <memory>

#include "plugins/backend-cuda/failure.h"

namespace apr::cuda {

namespace {

// Newest first; a major version is one soname.
constexpr int kMajors[] = {13, 12};

struct Opened {
  boost::dll::shared_library library;
  Nvrtc nvrtc;
};

std::vector<std::string> matching_folders(const char* pattern) {
  std::vector<std::string> found;
  glob_t matches{};
  if (::glob(pattern, 0, nullptr, &matches) == 0)
    for (size_t i = 0; i < matches.gl_pathc; ++i) found.emplace_back(matches.gl_pathv[i]);
  ::globfree(&matches);
  return found;
}

// "" stands for the loader's own search path (LD_LIBRARY_PATH, ld.so.cache).
std::vector<std::string> folders() {
  std::vector<std::string> list = {""};
  for (const char* variable : {"CUDA_HOME", "CUDA_PATH"})
    if (const char* value = std::getenv(variable); value != nullptr && value[0] == '/')
      list.push_back(std::string(value) + "/lib64");
  for (const std::string& folder : matching_folders("/usr/local/cuda*/lib64")) list.push_back(folder);
  boost::dll::fs::error_code code;
  const auto program = boost::dll::program_location(code);
  if (!code) {
    list.push_back((program.parent_path() / "lib").string());
    list.push_back((program.parent_path() / ".." / "lib").lexically_normal().string());
  }
  return list;
}

bool try_open(const std::string& path, Opened& opened) {
  boost::dll::fs::error_code code;
  boost::dll::shared_library library;
  library.load(path, boost::dll::load_mode::rtld_now | boost::dll::load_mode::search_system_folders, code);
  if (code) return false;
  Nvrtc n;
#define APR_X(name)                      \
  if (!library.has(#name)) return false; \
  n.name = &library.get<std::remove_pointer_t<decltype(n.name)>>(#name);
  APR_NVRTC_FUNCTIONS(APR_X)
#undef APR_X
  if (n.nvrtcVersion(&n.major, &n.minor) != NVRTC_SUCCESS) return false;
  n.file = library.location(code).string();
  if (code || n.file.empty()) n.file = path;
  int count = 0;
  if (n.nvrtcGetNumSupportedArchs(&count) == NVRTC_SUCCESS && count > 0) {
    n.architectures.resize(static_cast<size_t>(count));
    if (n.nvrtcGetSupportedArchs(n.architectures.data()) != NVRTC_SUCCESS) n.architectures.clear();
  }
  opened.library = std::move(library);
  opened.nvrtc = std::move(n);
  return true;
}

struct Search {
  Opened opened;
  NvrtcSearch result;
};

std::unique_ptr<Search> search(int driver_version) {
  auto s = std::make_unique<Search>();
  std::vector<int> order;
  const int driver_major = driver_version / 1000;
  for (const int major : kMajors)
    if (driver_version == 0 || major <= driver_major) order.push_back(major);
  for (const int major : kMajors)
    if (driver_version != 0 && major > driver_major) order.push_back(major);
  const std::vector<std::string> list = folders();
  for (const int major : order) {
    for (const std::string& folder : list) {
      const std::string name = fmt::format("libnvrtc.so.{}", major);
      if (try_open(folder.empty() ? name : folder + "/" + name, s->opened)) {
        s->result.library = &s->opened.nvrtc;
        return s;
      }
    }
  }
  std::vector<std::string> shown;
  for (const std::string& folder : list) shown.push_back(folder.empty() ? "the loader's path" : folder);
  s->result.reason = fmt::format(
      "no NVRTC (libnvrtc.so.13 or .12) in {}; install the CUDA toolkit's NVRTC (Debian and Ubuntu: package "
      "cuda-nvrtc-13-0 of NVIDIA's repository, or the "
      "Python package nvidia-cuda-nvrtc) and name its folder in LD_LIBRARY_PATH",
      join(shown, ", "));
  return s;
}

}  // namespace

const NvrtcSearch& nvrtc(int driver_version) {
  static const std::unique_ptr<Search> found = search(driver_version);
  return found->result;
}

Compiled compile(const Nvrtc& nvrtc, const std::string& name, const std::string& source,
                 const std::vector<NamedText>& headers, const std::vector<std::string>& options) {
  const auto check = [&](nvrtcResult result, const char* doing) {
    if (result != NVRTC_SUCCESS)
      throw failure(APR_FAILED, "NVRTC, {} {}: {}", doing, name, nvrtc.nvrtcGetErrorString(result));
  };
  std::vector<const char*> texts, names, arguments;
  for (const NamedText& header : headers)
    texts.push_back(header.text.c_str()), names.push_back(header.name.c_str());
  for (const std::string& option : options) arguments.push_back(option.c_str());

  nvrtcProgram program = nullptr;
  check(nvrtc.nvrtcCreateProgram(&program, source.c_str(), name.c_str(), static_cast<int>(headers.size()),
                                 texts.data(), names.data()),
        "creating");
  const auto destroy = [&](nvrtcProgram* p) { nvrtc.nvrtcDestroyProgram(p); };
  const std::unique_ptr<nvrtcProgram, decltype(destroy)> guard(&program, destroy);

  const nvrtcResult result =
      nvrtc.nvrtcCompileProgram(program, static_cast<int>(arguments.size()), arguments.data());
  Compiled out;
  size_t bytes = 0;
  if (nvrtc.nvrtcGetProgramLogSize(program, &bytes) == NVRTC_SUCCESS && bytes > 1) {
    out.log.resize(bytes);
    if (nvrtc.nvrtcGetProgramLog(program, out.log.data()) != NVRTC_SUCCESS) out.log.clear();
    while (!out.log.empty() && (out.log.back() == '\0' || out.log.back() == '\n')) out.log.pop_back();
  }
  if (result != NVRTC_SUCCESS)
    throw failure(APR_FAILED, "{} does not compile ({}, options {}):\n{}", name,
                  nvrtc.nvrtcGetErrorString(result), join(options, " "), out.log);
  check(nvrtc.nvrtcGetCUBINSize(program, &bytes), "reading the cubin of");
  out.cubin.resize(bytes);
  if (bytes > 0) check(nvrtc.nvrtcGetCUBIN(program, out.cubin.data()), "reading the cubin of");
  check(nvrtc.nvrtcGetPTXSize(program, &bytes), "reading the PTX of");
  out.ptx.resize(bytes);
  check(nvrtc.nvrtcGetPTX(program, out.ptx.data()), "reading the PTX of");
  while (!out.ptx.empty() && out.ptx.back() == '\0') out.ptx.pop_back();
  return out;
}

}  // namespace apr::cuda
