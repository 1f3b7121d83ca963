#include "plugins/backend-cuda/driver.h"

#include <dlfcn.h>

#include <boost/dll/shared_library.hpp>

#include "plugins/backend-cuda/failure.h"

namespace apr::cuda {

namespace {

struct Opened {
  boost::dll::shared_library library;  // kept until exit: the driver owns threads
  Driver driver;
};

Opened open_driver() {
  Opened opened;
  boost::dll::fs::error_code code;
  // The soname alone, so that the loader's own search path finds it: containers and WSL put it in unusual folders.
  constexpr const char* kName = "libcuda.so.1";
  opened.library.load(kName, boost::dll::load_mode::rtld_now | boost::dll::load_mode::search_system_folders,
                      code);
  if (code) {
    const char* loader = ::dlerror();  // says more than the code: not found, or found and broken
    throw failure(APR_NO_DEVICE,
                  "no NVIDIA driver here: {}; install the NVIDIA driver (CUDA {}.{} or newer), and in a "
                  "container start it with GPU access",
                  loader == nullptr ? code.message() : loader, kLeastDriver / 1000, kLeastDriver % 1000 / 10);
  }
  Driver& d = opened.driver;
  d.file = opened.library.location(code).string();
  if (code || d.file.empty()) d.file = kName;
  if (!opened.library.has("cuGetProcAddress_v2"))
    throw failure(APR_NO_DEVICE,
                  "the NVIDIA driver is too old: {} has no cuGetProcAddress_v2 (CUDA 12.0); install a driver "
                  "for CUDA {}.{} or newer",
                  d.file, kLeastDriver / 1000, kLeastDriver % 1000 / 10);
  const auto get = reinterpret_cast<PFN_cuGetProcAddress_v12000>(
      opened.library.get<CUresult(const char*, void**, int, cuuint64_t, CUdriverProcAddressQueryResult*)>(
          "cuGetProcAddress_v2"));
  const auto entry = [&](const char* name, int version) -> void* {
    void* address = nullptr;
    CUdriverProcAddressQueryResult found = CU_GET_PROC_ADDRESS_SUCCESS;
    const CUresult result = get(name, &address, version, CU_GET_PROC_ADDRESS_DEFAULT, &found);
    if (result != CUDA_SUCCESS || address == nullptr)
      throw failure(APR_NO_DEVICE,
                    "the NVIDIA driver is too old: {} does not provide {} of CUDA {}.{}; install a driver "
                    "for CUDA {}.{} or newer",
                    d.file, name, version / 1000, version % 1000 / 10, kLeastDriver / 1000,
                    kLeastDriver % 1000 / 10);
    return address;
  };
  // The version first: of an old driver the message should give its number, not the first function that it lacks.
  d.cuDriverGetVersion = reinterpret_cast<PFN_cuDriverGetVersion_v2020>(entry("cuDriverGetVersion", 2020));
  if (d.cuDriverGetVersion(&d.version) != CUDA_SUCCESS || d.version < kLeastDriver)
    throw failure(
        APR_NO_DEVICE,
        "the NVIDIA driver is too old: it supports CUDA {}, and {}.{} is needed; install a newer driver",
        d.version_text(), kLeastDriver / 1000, kLeastDriver % 1000 / 10);
#define APR_X(name, version) d.name = reinterpret_cast<PFN_##name##_v##version>(entry(#name, version));
  APR_CUDA_DRIVER_FUNCTIONS(APR_X)
#undef APR_X
  const CUresult result = d.cuInit(0);
  if (result != CUDA_SUCCESS) {
    const char *name = nullptr, *text = nullptr;
    d.cuGetErrorName(result, &name);
    d.cuGetErrorString(result, &text);
    throw failure(APR_NO_DEVICE, "the NVIDIA driver does not start: {} ({}); see nvidia-smi",
                  text == nullptr ? "unknown error" : text,
                  name == nullptr ? std::to_string(static_cast<int>(result)) : name);
  }
  return opened;
}

}  // namespace

void Driver::check(CUresult result, const char* doing) const {
  if (result == CUDA_SUCCESS) return;
  const char *name = nullptr, *text = nullptr;
  cuGetErrorName(result, &name);
  cuGetErrorString(result, &text);
  throw failure(result == CUDA_ERROR_OUT_OF_MEMORY ? APR_NO_MEMORY : APR_FAILED, "{}: {} ({})", doing,
                text == nullptr ? "unknown error" : text,
                name == nullptr ? std::to_string(static_cast<int>(result)) : name);
}

const Driver& driver() {
  // A failure is kept too: asking again would give the same reason, and the loader would search again.
  struct Result {
    Opened opened;
    std::string reason;
  };
  static const Result result = [] {
    Result r;
    try {
      r.opened = open_driver();
    } catch (const Failure& e) {
      r.reason = e.what();
    }
    return r;
  }();
  if (!result.reason.empty()) throw Failure(APR_NO_DEVICE, result.reason);
  return result.opened.driver;
}

}  // namespace apr::cuda
