#include "plugins/backend-cuda/device.h"

#include <fmt/format.h>

#include "core/base/format.h"
#include "plugins/backend-cuda/failure.h"

namespace apr::cuda {

Gpu::Gpu(uint32_t index) : driver_(cuda::driver()) {
  int count = 0;
  driver_.check(driver_.cuDeviceGetCount(&count), "counting GPUs");
  if (count == 0)
    throw failure(APR_NO_DEVICE,
                  "the NVIDIA driver (CUDA {}) sees no GPU; check nvidia-smi and CUDA_VISIBLE_DEVICES",
                  driver_.version_text());
  if (index >= static_cast<uint32_t>(count))
    throw failure(APR_NO_DEVICE, "there is no GPU {}: the driver counts {}", index, count);
  driver_.check(driver_.cuDeviceGet(&device_, static_cast<int>(index)), "opening the GPU");
  char name[128] = {};
  driver_.check(driver_.cuDeviceGetName(name, sizeof name - 1, device_), "reading the GPU's name");
  name_ = name;
  capability_ = 10 * attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) +
                attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
  multiprocessors_ = attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
  max_shared_ = attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
  driver_.check(driver_.cuDeviceTotalMem(&memory_total_, device_), "reading the GPU's memory size");
  driver_.check(driver_.cuDevicePrimaryCtxRetain(&context_, device_), "creating the GPU's context");
  try {
    make_current();
    driver_.check(driver_.cuStreamCreate(&stream_, CU_STREAM_NON_BLOCKING), "creating a stream");
  } catch (...) {
    driver_.cuDevicePrimaryCtxRelease(device_);
    throw;
  }
}

Gpu::~Gpu() {
  if (driver_.cuCtxSetCurrent(context_) == CUDA_SUCCESS) driver_.cuStreamDestroy(stream_);
  driver_.cuDevicePrimaryCtxRelease(device_);
}

int Gpu::attribute(CUdevice_attribute which) const {
  int value = 0;
  driver_.check(driver_.cuDeviceGetAttribute(&value, which, device_), "reading an attribute of the GPU");
  return value;
}

uint64_t Gpu::memory_free() const {
  size_t free = 0, total = 0;
  driver_.check(driver_.cuMemGetInfo(&free, &total), "reading the GPU's free memory");
  return free;
}

void Gpu::make_current() const {
  driver_.check(driver_.cuCtxSetCurrent(context_), "selecting the GPU's context");
}

void Gpu::synchronize() const { driver_.check(driver_.cuStreamSynchronize(stream_), "waiting for the GPU"); }

DeviceMemory::DeviceMemory(const Gpu& gpu, uint64_t bytes, const char* what) : gpu_(&gpu), bytes_(bytes) {
  if (bytes == 0) return;
  const CUresult result = gpu.driver().cuMemAlloc(&address_, bytes);
  if (result == CUDA_ERROR_OUT_OF_MEMORY)
    throw failure(APR_NO_MEMORY,
                  "{}: {} needed on {}, {} of {} are free; a smaller context, fewer sequences or a smaller "
                  "batch need less",
                  what, human_bytes(bytes), gpu.name(), human_bytes(gpu.memory_free()),
                  human_bytes(gpu.memory_total()));
  gpu.driver().check(result, what);
}

DeviceMemory::~DeviceMemory() {
  if (address_ != 0) gpu_->driver().cuMemFree(address_);
}

PinnedMemory::PinnedMemory(const Gpu& gpu, uint64_t bytes, const char* what) : gpu_(&gpu), bytes_(bytes) {
  if (bytes == 0) return;
  // Portable: threads of the pool that lays weights out write to it without a context.
  gpu.driver().check(gpu.driver().cuMemHostAlloc(&address_, bytes, CU_MEMHOSTALLOC_PORTABLE), what);
}

PinnedMemory::~PinnedMemory() {
  if (address_ != nullptr) gpu_->driver().cuMemFreeHost(address_);
}

Event::Event(const Gpu& gpu, Timing timing) : gpu_(gpu) {
  gpu.driver().check(
      gpu.driver().cuEventCreate(&event_, timing == Timing::On ? CU_EVENT_DEFAULT : CU_EVENT_DISABLE_TIMING),
      "creating an event");
}

Event::~Event() { gpu_.driver().cuEventDestroy(event_); }

void Event::record() const {
  gpu_.driver().check(gpu_.driver().cuEventRecord(event_, gpu_.stream()), "recording an event");
}

void Event::await() const {
  gpu_.driver().check(gpu_.driver().cuEventSynchronize(event_), "waiting for the GPU");
}

double Event::until(const Event& later) const {
  later.await();
  float milliseconds = 0;
  gpu_.driver().check(gpu_.driver().cuEventElapsedTime(&milliseconds, event_, later.event_),
                      "reading an event");
  return 1e3 * static_cast<double>(milliseconds);
}

Kernel::Kernel(const Gpu& gpu, const KernelImage& image, const std::string& summary)
    : gpu_(&gpu), summary_(summary) {
  const Driver& d = gpu.driver();
  char log[4096] = {};
  CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
  void* values[] = {log, reinterpret_cast<void*>(sizeof log - 1)};
  const std::string& text = image.cubin.empty() ? image.ptx : image.cubin;
  const CUresult loaded = d.cuModuleLoadDataEx(&module_, text.c_str(), 2, options, values);
  if (loaded != CUDA_SUCCESS) {
    const char* name = nullptr;
    d.cuGetErrorName(loaded, &name);
    throw failure(APR_FAILED, "the driver (CUDA {}) refuses kernel {}: {}{}{}", d.version_text(), summary,
                  name == nullptr ? "error" : name, log[0] == '\0' ? "" : ": ", log);
  }
  try {
    d.check(d.cuModuleGetFunction(&function_, module_, "apr_kernel"), summary.c_str());
    CUdeviceptr address = 0;
    size_t bytes = 0;
    d.check(d.cuModuleGetGlobal(&address, &bytes, module_, "apr_launch"), summary.c_str());
    if (bytes != sizeof(LaunchShape))
      throw Error("kernel {}: its apr_launch has {} bytes instead of {}", summary, bytes,
                  sizeof(LaunchShape));
    d.check(d.cuMemcpyDtoH(&shape_, address, sizeof shape_), summary.c_str());
    if (shape_.shared_bytes > static_cast<uint32_t>(gpu.max_shared()))
      throw Error("kernel {}: needs {} bytes of shared memory, and {} has {}", summary, shape_.shared_bytes,
                  gpu.name(), gpu.max_shared());
    // A CTA that uses more than 48 KiB has to ask, and its static shared memory counts too: so all ask.
    if (shape_.shared_bytes > 0)
      d.check(d.cuFuncSetAttribute(function_, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                   static_cast<int>(shape_.shared_bytes)),
              summary.c_str());
  } catch (...) {
    d.cuModuleUnload(module_);
    throw;
  }
}

void Kernel::set_generic_shape(const GenericShape& shape) {
  const Driver& d = gpu_->driver();
  CUdeviceptr address = 0;
  size_t bytes = 0;
  d.check(d.cuModuleGetGlobal(&address, &bytes, module_, "apr_shape"), summary_.c_str());
  if (bytes != sizeof shape)
    throw Error("kernel {}: its apr_shape has {} bytes instead of {}", summary_, bytes, sizeof shape);
  d.check(d.cuMemcpyHtoD(address, &shape, sizeof shape), summary_.c_str());
}

Kernel::~Kernel() {
  if (module_ != nullptr) gpu_->driver().cuModuleUnload(module_);
}

void Kernel::launch(const Gpu& gpu, const void* args, uint32_t rows, bool after_kernel) const {
  CUlaunchAttribute attributes[2] = {};
  CUlaunchConfig config{};
  config.gridDimX = shape_.grid_x;
  config.gridDimY = shape_.tile_m == 0 ? shape_.grid_y : (rows + shape_.tile_m - 1) / shape_.tile_m;
  config.gridDimZ = shape_.grid_z;
  config.blockDimX = shape_.block;
  config.blockDimY = config.blockDimZ = 1;
  config.sharedMemBytes = shape_.shared_bytes;
  config.hStream = gpu.stream();
  config.attrs = attributes;
  if (after_kernel && (shape_.flags & kLaunchPdl) != 0 && gpu.capability() >= 90) {
    attributes[config.numAttrs].id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
    attributes[config.numAttrs++].value.programmaticStreamSerializationAllowed = 1;
  }
  if (shape_.cluster_x > 1) {
    attributes[config.numAttrs].id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    attributes[config.numAttrs++].value.clusterDim = {shape_.cluster_x, 1, 1};
  }
  void* parameters[] = {const_cast<void*>(args)};
  gpu.driver().check(gpu.driver().cuLaunchKernelEx(&config, function_, parameters, nullptr),
                     summary_.c_str());
}

}  // namespace apr::cuda
