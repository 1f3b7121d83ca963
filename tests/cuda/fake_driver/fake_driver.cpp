// libcuda.so.1 for tests without a GPU. Memory is host memory, poisoned when it is allocated; kernels are emulated when the
// fake NVRTC made them, and only their launch shapes are checked when the real one did; what the real driver refuses while
// a stream is being captured is refused here too.
//   APR_TEST_FAKE_CUDA=version=11040,devices=0,memory=1000000,fail=cuLaunchKernelEx,trace=/file
// changes the driver's version, the number of GPUs, the bytes of memory, makes a call fail, and writes a line per launch.
#include <cuda.h>
#include <cudaTypedefs.h>
#include <elf.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "plugins/backend-cuda/driver.h"
#include "ptx-templates/args.h"
#include "ptx-templates/generic/shape.h"
#include "tests/cuda/fake_driver/emulate.h"

struct CUmod_st {
  std::string source;  // "" for real machine code, which is not run
  apr::LaunchShape shape;
  apr::GenericShape generic{};  // of prebuilt PTX, which the launcher writes
};
struct CUfunc_st {
  CUmod_st* module;
};
struct CUgraph_st {
  std::vector<std::function<void()>> work;
};
struct CUgraphExec_st {
  std::vector<std::function<void()>> work;
};

namespace {

std::string option(const std::string& name, const std::string& preset) {
  const char* text = std::getenv("APR_TEST_FAKE_CUDA");
  const std::string all = text == nullptr ? "" : "," + std::string(text) + ",";
  const size_t at = all.find("," + name + "=");
  if (at == std::string::npos) return preset;
  const size_t from = at + name.size() + 2;
  return all.substr(from, all.find(',', from) - from);
}

std::mutex mutex;
std::map<CUdeviceptr, size_t> memory;
size_t used = 0;
CUgraph_st* capturing = nullptr;

size_t total_memory() { return std::stoull(option("memory", "8000000000")); }

CUresult run(std::function<void()> work) {
  if (capturing != nullptr) {
    capturing->work.push_back(std::move(work));
    return CUDA_SUCCESS;
  }
  try {
    work();
  } catch (const std::exception& e) {
    std::fprintf(stderr, "fake driver: %s\n", e.what());
    return CUDA_ERROR_LAUNCH_FAILED;
  }
  return CUDA_SUCCESS;
}
CUresult not_while_capturing() {
  return capturing == nullptr ? CUDA_SUCCESS : CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
}

// The range must lie within one allocation.
bool inside(CUdeviceptr at, size_t bytes) {
  auto found = memory.upper_bound(at);
  if (found == memory.begin()) return false;
  --found;
  return at + bytes <= found->first + found->second;
}

constexpr const char* kGeneric = "// apr generic: ";

// "// apr generic: linear.q4_k apr::Q4K::RowMajor interface ..." and a shape as the prelude that the emulator reads.
std::string prelude_of(const CUmod_st& module) {
  const std::string line = module.source.substr(std::strlen(kGeneric));
  const std::string name = line.substr(0, line.find(' ')), op = name.substr(0, name.find('.'));
  const apr::GenericShape& s = module.generic;
  std::string text = "// generic: " + op + " float m=any\nnamespace apr::spec {\n";
  const auto constant = [&](const char* constant_name, int value) {
    text += "constexpr int " + std::string(constant_name) + " = " + std::to_string(value) + ";\n";
  };
  constant("kM", 0), constant("kK", s.k), constant("kN", s.n), constant("kGroups", s.groups),
      constant("kHeads", s.heads);
  constant("kKvHeads", s.kv_heads), constant("kHeadDim", s.head_dim), constant("kRopeDims", s.rope_dims),
      constant("kRopeKind", s.rope_kind);
  constant("kWindow", s.window), constant("kTopK", s.top_k);
  for (const char* zero : {"kEpilogue", "kNorm", "kInput", "kOutput", "kQkNorm", "kFused", "kSwiglu"})
    constant(zero, 0);
  if (name.size() > op.size()) {
    const std::string layout =
        line.substr(name.size() + 1, line.find(' ', name.size() + 1) - name.size() - 1);
    text += "struct Segment0 { using Layout = " + layout +
            "; static constexpr int kN = " + std::to_string(s.n) +
            "; static constexpr bool kBias = " + (s.bias != 0 ? "true" : "false") + "; };\n";
  }
  return text + "}  // namespace apr::spec\n";
}

// The constant apr_launch of a cubin, which is an ELF file.
bool find_shape(const char* image, apr::LaunchShape& shape) {
  const auto* header = reinterpret_cast<const Elf64_Ehdr*>(image);
  const auto* sections = reinterpret_cast<const Elf64_Shdr*>(image + header->e_shoff);
  for (int i = 0; i < header->e_shnum; ++i) {
    if (sections[i].sh_type != SHT_SYMTAB) continue;
    const char* names = image + sections[sections[i].sh_link].sh_offset;
    for (uint64_t at = 0; at < sections[i].sh_size; at += sizeof(Elf64_Sym)) {
      const auto* symbol = reinterpret_cast<const Elf64_Sym*>(image + sections[i].sh_offset + at);
      if (std::strcmp(names + symbol->st_name, "apr_launch") != 0 || symbol->st_size != sizeof shape)
        continue;
      std::memcpy(&shape, image + sections[symbol->st_shndx].sh_offset + symbol->st_value, sizeof shape);
      return true;
    }
  }
  return false;
}

namespace fake {

CUresult cuGetErrorName(CUresult, const char** text) { return *text = "CUDA_ERROR_FAKE", CUDA_SUCCESS; }
CUresult cuGetErrorString(CUresult, const char** text) { return *text = "fake error", CUDA_SUCCESS; }
CUresult cuInit(unsigned) { return option("fail", "") == "cuInit" ? CUDA_ERROR_NO_DEVICE : CUDA_SUCCESS; }
CUresult cuDriverGetVersion(int* version) {
  return *version = std::stoi(option("version", "13000")), CUDA_SUCCESS;
}
CUresult cuDeviceGetCount(int* count) { return *count = std::stoi(option("devices", "1")), CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice* device, int) { return *device = 0, CUDA_SUCCESS; }
CUresult cuDeviceGetName(char* name, int bytes, CUdevice) {
  return std::snprintf(name, static_cast<size_t>(bytes), "Fake GPU"), CUDA_SUCCESS;
}
CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute which, CUdevice) {
  const int arch = std::stoi(option("arch", "90"));
  *value = which == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR            ? arch / 10
           : which == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR          ? arch % 10
           : which == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT              ? 132
           : which == CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN ? 232448
                                                                            : 0;
  return CUDA_SUCCESS;
}
CUresult cuDeviceTotalMem(size_t* bytes, CUdevice) { return *bytes = total_memory(), CUDA_SUCCESS; }
CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice) {
  return *context = reinterpret_cast<CUcontext>(&memory), CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease(CUdevice) { return CUDA_SUCCESS; }
CUresult cuCtxSetCurrent(CUcontext) { return CUDA_SUCCESS; }
CUresult cuMemGetInfo(size_t* free, size_t* total) {
  return *total = total_memory(), *free = *total - used, CUDA_SUCCESS;
}
CUresult cuMemAlloc(CUdeviceptr* address, size_t bytes) {
  if (capturing != nullptr) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  const std::lock_guard lock(mutex);
  if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  if (used + bytes > total_memory()) return CUDA_ERROR_OUT_OF_MEMORY;
  void* block = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  std::memset(block, 0xff, bytes);  // NaN as floats
  *address = reinterpret_cast<CUdeviceptr>(block);
  memory[*address] = bytes;
  used += bytes;
  return CUDA_SUCCESS;
}
CUresult cuMemFree(CUdeviceptr address) {
  const std::lock_guard lock(mutex);
  const auto found = memory.find(address);
  if (found == memory.end()) return CUDA_ERROR_INVALID_VALUE;
  used -= found->second;
  memory.erase(found);
  std::free(reinterpret_cast<void*>(address));
  return CUDA_SUCCESS;
}
CUresult cuMemHostAlloc(void** address, size_t bytes, unsigned) {
  if (capturing != nullptr) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  return *address = std::aligned_alloc(256, (bytes + 255) / 256 * 256), CUDA_SUCCESS;
}
CUresult cuMemFreeHost(void* address) { return std::free(address), CUDA_SUCCESS; }
CUresult copy(void* to, const void* from, size_t bytes, CUdeviceptr device) {
  if (!inside(device, bytes)) return CUDA_ERROR_INVALID_VALUE;
  return run([=] { std::memmove(to, from, bytes); });
}
CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, size_t bytes, CUstream) {
  return copy(reinterpret_cast<void*>(to), from, bytes, to);
}
CUresult cuMemcpyDtoHAsync(void* to, CUdeviceptr from, size_t bytes, CUstream) {
  return copy(to, reinterpret_cast<void*>(from), bytes, from);
}
CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream) {
  if (!inside(from, bytes)) return CUDA_ERROR_INVALID_VALUE;
  return copy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes, to);
}
CUresult cuMemcpyDtoH(void* to, CUdeviceptr from, size_t bytes) {
  std::memcpy(to, reinterpret_cast<void*>(from), bytes);  // of a module's constant, which is not in the map
  return not_while_capturing();
}
CUresult cuMemcpyHtoD(CUdeviceptr to, const void* from, size_t bytes) {
  std::memcpy(reinterpret_cast<void*>(to), from, bytes);  // to a module's constant
  return not_while_capturing();
}
CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, CUstream) {
  if (!inside(to, bytes)) return CUDA_ERROR_INVALID_VALUE;
  return run([=] { std::memset(reinterpret_cast<void*>(to), value, bytes); });
}
CUresult cuStreamCreate(CUstream* stream, unsigned) {
  return *stream = reinterpret_cast<CUstream>(&used), CUDA_SUCCESS;
}
CUresult cuStreamDestroy(CUstream) { return CUDA_SUCCESS; }
CUresult cuStreamSynchronize(CUstream) { return not_while_capturing(); }
CUresult cuStreamQuery(CUstream) { return not_while_capturing(); }
CUresult cuStreamBeginCapture(CUstream, CUstreamCaptureMode) {
  return capturing = new CUgraph_st, CUDA_SUCCESS;
}
CUresult cuStreamEndCapture(CUstream, CUgraph* graph) {
  return *graph = capturing, capturing = nullptr, CUDA_SUCCESS;
}
CUresult cuEventCreate(CUevent* event, unsigned) {
  return *event = reinterpret_cast<CUevent>(&used), CUDA_SUCCESS;
}
CUresult cuEventDestroy(CUevent) { return CUDA_SUCCESS; }
CUresult cuEventRecord(CUevent, CUstream) { return CUDA_SUCCESS; }
CUresult cuEventSynchronize(CUevent) { return not_while_capturing(); }
CUresult cuEventElapsedTime(float* milliseconds, CUevent, CUevent) {
  return *milliseconds = 1.0f, CUDA_SUCCESS;
}
CUresult cuModuleLoadDataEx(CUmodule* module, const void* image, unsigned, CUjit_option*, void**) {
  if (capturing != nullptr) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  if (std::memcmp(image, ELFMAG, SELFMAG) == 0) {
    *module = new CUmod_st{"", {}};
    return find_shape(static_cast<const char*>(image), (*module)->shape) ? CUDA_SUCCESS
                                                                         : CUDA_ERROR_INVALID_IMAGE;
  }
  *module = new CUmod_st{static_cast<const char*>(image), {}};
  if ((*module)->source.starts_with(kGeneric)) {
    // Real PTX, of which the first line tells the kernel; its shape comes later.
    (*module)->source = (*module)->source.substr(0, (*module)->source.find('\n'));
    (*module)->shape = {528, 1, 1, 128, 0, 1, 0, 1, 0, 0};
    return CUDA_SUCCESS;
  }
  // One row a CTA where the number of rows is known at run time; 100 KiB, so that the function must ask for it.
  (*module)->shape = {1,
                      1,
                      1,
                      32,
                      100 * 1024,
                      (*module)->source.find("constexpr int kM = 0;") != std::string::npos ? 1u : 0u,
                      apr::kLaunchPdl,
                      1,
                      512,
                      1 << 14};
  return CUDA_SUCCESS;
}
CUresult cuModuleUnload(CUmodule module) { return delete module, CUDA_SUCCESS; }
CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
  if (std::strcmp(name, "apr_kernel") != 0) return CUDA_ERROR_NOT_FOUND;
  *function = reinterpret_cast<CUfunction>(module);
  return CUDA_SUCCESS;
}
CUresult cuModuleGetGlobal(CUdeviceptr* address, size_t* bytes, CUmodule module, const char* name) {
  if (std::strcmp(name, "apr_shape") == 0 && module->source.starts_with(kGeneric))
    return *address = reinterpret_cast<CUdeviceptr>(&module->generic), *bytes = sizeof module->generic,
           CUDA_SUCCESS;
  if (std::strcmp(name, "apr_launch") != 0) return CUDA_ERROR_NOT_FOUND;
  return *address = reinterpret_cast<CUdeviceptr>(&module->shape), *bytes = sizeof module->shape,
         CUDA_SUCCESS;
}
CUresult cuFuncSetAttribute(CUfunction, CUfunction_attribute, int) { return CUDA_SUCCESS; }
CUresult cuLaunchKernelEx(const CUlaunchConfig* config, CUfunction function, void** parameters, void**) {
  if (option("fail", "") == "cuLaunchKernelEx") return CUDA_ERROR_LAUNCH_FAILED;
  if (config->gridDimX == 0 || config->gridDimY == 0 || config->gridDimZ == 0 || config->blockDimX == 0 ||
      config->blockDimX > 1024)
    return CUDA_ERROR_INVALID_VALUE;
  const auto* module = reinterpret_cast<const CUmod_st*>(function);
  if (const std::string file = option("trace", ""); !file.empty()) {
    std::FILE* trace = std::fopen(file.c_str(), "a");
    std::fprintf(trace, "%s grid_y=%u pdl=%u capture=%d\n",
                 module->source.substr(0, module->source.find('\n')).c_str(), config->gridDimY,
                 config->numAttrs, capturing != nullptr);
    std::fclose(trace);
  }
  if (module->source.empty()) {
    const apr::LaunchShape& shape = module->shape;
    return config->gridDimX == shape.grid_x && config->blockDimX == shape.block &&
                   config->sharedMemBytes == shape.shared_bytes
               ? CUDA_SUCCESS
               : CUDA_ERROR_INVALID_VALUE;
  }
  // The driver copies the arguments at launch, and so does this.
  const std::string source = module->source.starts_with(kGeneric) ? prelude_of(*module) : module->source;
  std::vector<char> args(apr::fake::args_bytes(source));
  std::memcpy(args.data(), parameters[0], args.size());
  return run([source, args] { apr::fake::emulate(source, args.data()); });
}
CUresult cuGraphInstantiateWithFlags(CUgraphExec* exec, CUgraph graph, unsigned long long) {
  return *exec = new CUgraphExec_st{graph->work}, CUDA_SUCCESS;
}
CUresult cuGraphLaunch(CUgraphExec exec, CUstream) {
  for (const auto& work : exec->work)
    if (const CUresult result = run(work); result != CUDA_SUCCESS) return result;
  return CUDA_SUCCESS;
}
CUresult cuGraphExecDestroy(CUgraphExec exec) { return delete exec, CUDA_SUCCESS; }
CUresult cuGraphDestroy(CUgraph graph) { return delete graph, CUDA_SUCCESS; }

}  // namespace fake

}  // namespace

extern "C" __attribute__((visibility("default"))) CUresult cuGetProcAddress_v2(
    const char* name, void** address, int, cuuint64_t, CUdriverProcAddressQueryResult* found) {
  *address = nullptr;
#define APR_X(function, version)                                                                    \
  static_assert(std::is_same_v<decltype(&fake::function), PFN_##function##_v##version>, #function); \
  if (std::strcmp(name, #function) == 0) *address = reinterpret_cast<void*>(&fake::function);
  APR_CUDA_DRIVER_FUNCTIONS(APR_X)
#undef APR_X
  *found = *address == nullptr ? CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND : CU_GET_PROC_ADDRESS_SUCCESS;
  return *address == nullptr ? CUDA_ERROR_NOT_FOUND : CUDA_SUCCESS;
}
