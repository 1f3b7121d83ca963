#include "core/conformance/host_codec.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "apr/codec.h"  // for the build's dependencies: its text is taken in below
#include "core/base/error.h"

extern "C" __attribute__((visibility("hidden"))) const char apr_conformance_codec_contract[];
__asm__(
    ".pushsection .rodata\n.hidden apr_conformance_codec_contract\n.global apr_conformance_codec_contract\n"
    "apr_conformance_codec_contract:\n.incbin \"apr/codec.h\"\n.byte 0\n.popsection\n");

namespace apr::conformance {
namespace fs = std::filesystem;

namespace {

// A folder that nobody else can write, removed at the end.
class Scratch {
 public:
  Scratch() {
    std::string name = (fs::temp_directory_path() / "apr-check-XXXXXX").native();
    if (mkdtemp(name.data()) == nullptr)
      throw Error("{}: a temporary folder cannot be made", fs::temp_directory_path().native());
    path_ = name;
  }
  ~Scratch() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }
  void write(const fs::path& name, const std::string& text) const {
    fs::create_directories((path_ / name).parent_path());
    std::ofstream out(path_ / name, std::ios::binary);
    out << text;
    if (!out) throw Error("{}: cannot be written", (path_ / name).native());
  }

 private:
  fs::path path_;
};

std::string source_of(const apr_codec& codec) {
  std::string text = fmt::format(
      "#include \"apr/codec.h\"\n#include \"codec.h\"\n"
      "using C = {};\n"
      "#define APR_OUT extern \"C\" __attribute__((visibility(\"default\")))\n"
      "template <class T> constexpr int offset_of() {{ if constexpr (T::kInteger) return T::kOffset; else "
      "return 0; }}\n"
      "template <class T> constexpr int group_of() {{ if constexpr (T::kInteger) return T::kGroup; else "
      "return 0; }}\n"
      "APR_OUT const int apr_numbers[] = {{C::kBlock, C::kBytes, C::kAlign, C::kInteger, offset_of<C>(), "
      "group_of<C>(), C::kRuns, C::kRun}};\n"
      "APR_OUT int apr_col(int chunk, int run) {{ return C::col(chunk, run); }}\n"
      "template <class T, class L> int decode(const uint8_t* const* planes, float* w) {{\n"
      "  int offsets = 0;\n"
      "  apr::Planes<L::kPlanes> block;\n"
      "  for (int p = 0; p < L::kPlanes; ++p) block.p[p] = planes[p];\n"
      "  for (int c = 0; c < T::kBlock / (T::kRuns * T::kRun); ++c) {{\n"
      "    const typename L::Raw raw = L::load(block, c);\n"
      "    if constexpr (T::kInteger) {{\n"
      "      apr::IntChunk<T::kRuns, T::kRun> chunk;\n"
      "      L::decode(raw, c, chunk);\n"
      "      for (int r = 0; r < T::kRuns; ++r) {{\n"
      "        if (!T::kOffset && chunk.offset[r] != 0.0f) ++offsets;\n"
      "        for (int i = 0; i < T::kRun; ++i) w[T::col(c, r) + i] = apr::chunk_value<T::kOffset>(chunk, "
      "r, i);\n"
      "      }}\n"
      "    }} else {{\n"
      "      apr::FloatChunk<T::kRuns, T::kRun> chunk;\n"
      "      L::decode(raw, c, chunk);\n"
      "      for (int r = 0; r < T::kRuns; ++r) for (int i = 0; i < T::kRun; ++i) w[T::col(c, r) + i] = "
      "chunk.v[r][i];\n"
      "    }}\n"
      "  }}\n"
      "  return offsets;\n"
      "}}\n",
      codec.cpp_type);
  for (uint32_t i = 0; i < codec.n_layouts; ++i)
    text += fmt::format(
        "using L{0} = {1};\n"
        "APR_OUT const int apr_planes_{0} = L{0}::kPlanes;\n"
        "APR_OUT int apr_plane_bytes_{0}(int p) {{ return L{0}::kPlaneBytes[p]; }}\n"
        "APR_OUT int apr_decode_{0}(const uint8_t* const* planes, float* w) {{ return decode<C, "
        "L{0}>(planes, w); }}\n",
        i, codec.layouts[i]->cpp_type);
  return text;
}

// Runs a program with both outputs in a file. Its exit status, -1 when it ended by a signal.
int run(const std::vector<std::string>& command, const fs::path& output) {
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, output.c_str(), O_WRONLY | O_CREAT | O_TRUNC,
                                   0600);
  posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  pid_t child = 0;
  const int failure = posix_spawnp(&child, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (failure != 0) throw Error("{}: cannot be run: {}", command[0], std::strerror(failure));
  int status = 0;
  while (waitpid(child, &status, 0) < 0)
    if (errno != EINTR) throw Error("{}: waiting for it failed: {}", command[0], std::strerror(errno));
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

bool on_path(const std::string& program) {
  if (program.find('/') != std::string::npos) return access(program.c_str(), X_OK) == 0;
  const char* path = std::getenv("PATH");
  std::string rest = path ? path : "";
  while (!rest.empty()) {
    const size_t colon = rest.find(':');
    const std::string folder = rest.substr(0, colon);
    if (!folder.empty() && access((folder + "/" + program).c_str(), X_OK) == 0) return true;
    if (colon == std::string::npos) break;
    rest.erase(0, colon + 1);
  }
  return false;
}

template <typename T>
T symbol(void* library, const std::string& name) {
  void* found = dlsym(library, name.c_str());
  if (!found) throw Error("internal error: the compiled codec lacks {}", name);
  return reinterpret_cast<T>(found);
}

}  // namespace

const char* codec_contract() { return apr_conformance_codec_contract; }

std::string find_compiler(const std::string& wanted) {
  if (!wanted.empty()) return wanted;
  const char* cxx = std::getenv("CXX");
  for (const std::string& candidate :
       {std::string(cxx ? cxx : ""), std::string("c++"), std::string("g++"), std::string("clang++")})
    if (!candidate.empty() && on_path(candidate)) return candidate;
  return "";
}

HostCompilation compile_for_host(const apr_codec& codec, const std::string& compiler) {
  const Scratch scratch;
  scratch.write("apr/codec.h", codec_contract());
  scratch.write("codec.h", codec.source);
  scratch.write("probe.cpp", source_of(codec));
  const fs::path library = scratch.path() / "probe.so", log = scratch.path() / "log";
  // As a plugin is compiled: products and sums are rounded by themselves. Optimised little: it runs for
  // milliseconds.
  const int status = run({compiler, "-std=c++20", "-O1", "-fPIC", "-shared", "-ffp-contract=off",
                          "-fvisibility=hidden", "-Wall", "-Wextra", "-I" + scratch.path().native(), "-o",
                          library.native(), (scratch.path() / "probe.cpp").native()},
                         log);
  HostCompilation result;
  std::ifstream in(log);
  result.log.assign(std::istreambuf_iterator<char>(in), {});
  // Paths of the scratch folder mean nothing to a reader.
  for (size_t at; (at = result.log.find(scratch.path().native() + "/")) != std::string::npos;)
    result.log.erase(at, scratch.path().native().size() + 1);
  if (status != 0) return result;
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) throw Error("the compiled codec cannot be opened: {}", dlerror());
  const auto* n = symbol<const int*>(handle, "apr_numbers");
  HostCodec host{n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], symbol<int (*)(int, int)>(handle, "apr_col"),
                 {}};
  for (uint32_t i = 0; i < codec.n_layouts; ++i) {
    const std::string index = std::to_string(i);
    HostCodec::Layout layout{*symbol<const int*>(handle, "apr_planes_" + index), {}, nullptr};
    const auto plane_bytes = symbol<int (*)(int)>(handle, "apr_plane_bytes_" + index);
    for (int p = 0; p < layout.planes; ++p) layout.plane_bytes.push_back(plane_bytes(p));
    layout.decode = symbol<int (*)(const uint8_t* const*, float*)>(handle, "apr_decode_" + index);
    host.layouts.push_back(std::move(layout));
  }
  result.codec = std::move(host);
  return result;
}

}  // namespace apr::conformance
