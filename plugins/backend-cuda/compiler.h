// NVRTC, the CUDA compiler as a library, opened at run time.
#pragma once

#include <nvrtc.h>

#include <string>
#include <vector>

namespace apr::cuda {

#define APR_NVRTC_FUNCTIONS(X) \
  X(nvrtcGetErrorString)       \
  X(nvrtcVersion)              \
  X(nvrtcCreateProgram)        \
  X(nvrtcDestroyProgram)       \
  X(nvrtcCompileProgram)       \
  X(nvrtcGetPTXSize)           \
  X(nvrtcGetPTX)               \
  X(nvrtcGetCUBINSize)         \
  X(nvrtcGetCUBIN)             \
  X(nvrtcGetProgramLogSize)    \
  X(nvrtcGetProgramLog)        \
  X(nvrtcGetNumSupportedArchs) \
  X(nvrtcGetSupportedArchs)

struct Nvrtc {
#define APR_X(name) decltype(&::name) name = nullptr;
  APR_NVRTC_FUNCTIONS(APR_X)
#undef APR_X

  int major = 0, minor = 0;        // its CUDA version
  std::string file;                // the library that was opened
  std::vector<int> architectures;  // that it can compile for: 80, 90, ...
};

struct NvrtcSearch {
  const Nvrtc* library = nullptr;  // null: none was found
  std::string reason;              // then: where was looked, and what to install
};

// Opens NVRTC once per process. `driver_version` (as Driver::version, 0 = unknown) makes a compiler of the driver's own
// major version win over a newer one, since a driver may refuse the output of a newer major version.
const NvrtcSearch& nvrtc(int driver_version);

// One header that a source may #include.
struct NamedText {
  std::string name;  // as in the #include
  std::string text;
};

struct Compiled {
  std::string cubin;
  std::string ptx;
  std::string log;  // warnings
};

// Compiles a source for one architecture (`options` says which). Any number of threads at once: NVRTC 13 compiles
// concurrently (measured: four threads all running). Throws apr::Error with the compiler's log on failure.
Compiled compile(const Nvrtc& nvrtc, const std::string& name, const std::string& source,
                 const std::vector<NamedText>& headers, const std::vector<std::string>& options);

}  // namespace apr::cuda
