// The CUDA driver API, opened at run time: a program built with this backend starts on a machine without a driver, and
// says what is missing only when the GPU is asked for. Nothing is linked; the entry points come through
// cuGetProcAddress, each in the version of the interface that it was compiled against.
#pragma once

#include <cuda.h>
#include <cudaTypedefs.h>

#include <string>

namespace apr::cuda {

// name, version of its signature as in cudaTypedefs.h (PFN_<name>_v<version>).
#define APR_CUDA_DRIVER_FUNCTIONS(X)    \
  X(cuGetErrorName, 6000)               \
  X(cuGetErrorString, 6000)             \
  X(cuInit, 2000)                       \
  X(cuDriverGetVersion, 2020)           \
  X(cuDeviceGetCount, 2000)             \
  X(cuDeviceGet, 2000)                  \
  X(cuDeviceGetName, 2000)              \
  X(cuDeviceGetAttribute, 2000)         \
  X(cuDeviceTotalMem, 3020)             \
  X(cuDevicePrimaryCtxRetain, 7000)     \
  X(cuDevicePrimaryCtxRelease, 11000)   \
  X(cuCtxSetCurrent, 4000)              \
  X(cuMemGetInfo, 3020)                 \
  X(cuMemAlloc, 3020)                   \
  X(cuMemFree, 3020)                    \
  X(cuMemHostAlloc, 2020)               \
  X(cuMemFreeHost, 2000)                \
  X(cuMemcpyHtoDAsync, 3020)            \
  X(cuMemcpyDtoHAsync, 3020)            \
  X(cuMemcpyDtoDAsync, 3020)            \
  X(cuMemsetD8Async, 3020)              \
  X(cuStreamCreate, 2000)               \
  X(cuStreamDestroy, 4000)              \
  X(cuStreamSynchronize, 2000)          \
  X(cuStreamQuery, 2000)                \
  X(cuStreamBeginCapture, 10010)        \
  X(cuStreamEndCapture, 10000)          \
  X(cuEventCreate, 2000)                \
  X(cuEventDestroy, 4000)               \
  X(cuEventRecord, 2000)                \
  X(cuEventSynchronize, 2000)           \
  X(cuEventElapsedTime, 2000)           \
  X(cuModuleLoadDataEx, 2010)           \
  X(cuModuleUnload, 2000)               \
  X(cuModuleGetFunction, 2000)          \
  X(cuModuleGetGlobal, 3020)            \
  X(cuMemcpyDtoH, 3020)                 \
  X(cuMemcpyHtoD, 3020)                 \
  X(cuFuncSetAttribute, 9000)           \
  X(cuLaunchKernelEx, 11060)            \
  X(cuGraphInstantiateWithFlags, 11040) \
  X(cuGraphLaunch, 10000)               \
  X(cuGraphExecDestroy, 10000)          \
  X(cuGraphDestroy, 10000)

struct Driver {
#define APR_X(name, version) PFN_##name##_v##version name = nullptr;
  APR_CUDA_DRIVER_FUNCTIONS(APR_X)
#undef APR_X

  int version = 0;   // what the driver supports: 1000 * major + 10 * minor of CUDA
  std::string file;  // the library that was opened

  // Throws Failure with `doing`, the driver's own name and text for the result. Out of memory becomes APR_NO_MEMORY.
  void check(CUresult result, const char* doing) const;
  std::string version_text() const {
    return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
  }
};

// The least CUDA version of a driver: 12.3 is the first that captures programmatic dependent launches into graphs.
constexpr int kLeastDriver = 12030;

// Opens libcuda once per process, initialises it and checks that it is new enough; every later call gives the same answer
// or throws the same Failure (APR_NO_DEVICE): the reason in one line, and what to install.
const Driver& driver();

}  // namespace apr::cuda
