// libnvrtc.so for tests without a compiler: a program's "cubin" is its source, which the fake driver emulates.
#include <nvrtc.h>

#include <cstdlib>
#include <cstring>
#include <string>

struct _nvrtcProgram {
  std::string source;
};

extern "C" {
__attribute__((visibility("default"))) const char* nvrtcGetErrorString(nvrtcResult) { return "fake error"; }
__attribute__((visibility("default"))) nvrtcResult nvrtcVersion(int* major, int* minor) {
  return *major = 13, *minor = 0, NVRTC_SUCCESS;
}
__attribute__((visibility("default"))) nvrtcResult nvrtcCreateProgram(nvrtcProgram* program,
                                                                      const char* source, const char*, int,
                                                                      const char* const*,
                                                                      const char* const*) {
  *program = new _nvrtcProgram{source};
  return NVRTC_SUCCESS;
}
__attribute__((visibility("default"))) nvrtcResult nvrtcDestroyProgram(nvrtcProgram* program) {
  delete *program;
  *program = nullptr;
  return NVRTC_SUCCESS;
}
__attribute__((visibility("default"))) nvrtcResult nvrtcCompileProgram(nvrtcProgram, int,
                                                                       const char* const*) {
  return NVRTC_SUCCESS;
}
__attribute__((visibility("default"))) nvrtcResult nvrtcGetPTXSize(nvrtcProgram, size_t* bytes) {
  return *bytes = 5, NVRTC_SUCCESS;
}
__attribute__((visibility("default"))) nvrtcResult nvrtcGetPTX(nvrtcProgram, char* text) {
  return std::strcpy(text, "fake"), NVRTC_SUCCESS;
}
__attribute__((visibility("default"))) nvrtcResult nvrtcGetCUBINSize(nvrtcProgram p, size_t* bytes) {
  return *bytes = p->source.size(), NVRTC_SUCCESS;
}
__attribute__((visibility("default"))) nvrtcResult nvrtcGetCUBIN(nvrtcProgram p, char* to) {
  return std::memcpy(to, p->source.data(), p->source.size()), NVRTC_SUCCESS;
}
__attribute__((visibility("default"))) nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram, size_t* bytes) {
  return *bytes = 1, NVRTC_SUCCESS;
}
__attribute__((visibility("default"))) nvrtcResult nvrtcGetProgramLog(nvrtcProgram, char* log) {
  return log[0] = '\0', NVRTC_SUCCESS;
}
__attribute__((visibility("default"))) nvrtcResult nvrtcGetNumSupportedArchs(int* count) {
  return *count = 3, NVRTC_SUCCESS;
}
__attribute__((visibility("default"))) nvrtcResult nvrtcGetSupportedArchs(int* archs) {
  return archs[0] = 80, archs[1] = 90, archs[2] = 100, NVRTC_SUCCESS;
}
}
