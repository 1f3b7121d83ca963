// A GPU that is open: its context, its stream, and owners for what is allocated on it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "plugins/backend-cuda/driver.h"
#include "plugins/backend-cuda/jit.h"
#include "plugins/backend-cuda/spec.h"
#include "ptx-templates/args.h"
#include "ptx-templates/generic/shape.h"

namespace apr::cuda {

// The primary context of one GPU, and one stream on which everything runs in order.
class Gpu {
 public:
  explicit Gpu(uint32_t index);
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;
  ~Gpu();

  const Driver& driver() const { return driver_; }
  CUstream stream() const { return stream_; }
  const std::string& name() const { return name_; }
  int capability() const { return capability_; }  // 90 = 9.0
  int multiprocessors() const { return multiprocessors_; }
  int max_shared() const { return max_shared_; }
  uint64_t l2_bytes() const { return static_cast<uint64_t>(attribute(CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)); }
  uint64_t memory_total() const { return memory_total_; }
  uint64_t memory_free() const;

  // Every public function of the backend begins with it: the caller may have changed threads.
  void make_current() const;
  void synchronize() const;

 private:
  int attribute(CUdevice_attribute which) const;

  const Driver& driver_;
  CUdevice device_ = 0;
  CUcontext context_ = nullptr;
  CUstream stream_ = nullptr;
  std::string name_;
  int capability_, multiprocessors_, max_shared_;
  size_t memory_total_ = 0;
};

// Device memory. Contents are undefined until they are written.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  // `what` names it in the message when there is not enough.
  DeviceMemory(const Gpu& gpu, uint64_t bytes, const char* what);
  DeviceMemory(DeviceMemory&& other) noexcept { swap(other); }
  DeviceMemory& operator=(DeviceMemory&& other) noexcept { return swap(other), *this; }
  ~DeviceMemory();

  CUdeviceptr address() const { return address_; }
  uint64_t bytes() const { return bytes_; }
  template <typename T>
  T* at(uint64_t offset = 0) const {
    return reinterpret_cast<T*>(address_ + offset);
  }

 private:
  void swap(DeviceMemory& other) noexcept {
    std::swap(gpu_, other.gpu_), std::swap(address_, other.address_), std::swap(bytes_, other.bytes_);
  }
  const Gpu* gpu_ = nullptr;
  CUdeviceptr address_ = 0;
  uint64_t bytes_ = 0;
};

// Host memory that the GPU copies from and to directly.
class PinnedMemory {
 public:
  PinnedMemory() = default;
  PinnedMemory(const Gpu& gpu, uint64_t bytes, const char* what);
  PinnedMemory(PinnedMemory&& other) noexcept { swap(other); }
  PinnedMemory& operator=(PinnedMemory&& other) noexcept { return swap(other), *this; }
  ~PinnedMemory();

  template <typename T>
  T* at(uint64_t offset = 0) const {
    return reinterpret_cast<T*>(static_cast<char*>(address_) + offset);
  }
  uint64_t bytes() const { return bytes_; }

 private:
  void swap(PinnedMemory& other) noexcept {
    std::swap(gpu_, other.gpu_), std::swap(address_, other.address_), std::swap(bytes_, other.bytes_);
  }
  const Gpu* gpu_ = nullptr;
  void* address_ = nullptr;
  uint64_t bytes_ = 0;
};

// A point in the GPU's stream.
class Event {
 public:
  enum class Timing { On, Off };  // without it, recording and waiting are cheaper
  explicit Event(const Gpu& gpu, Timing timing = Timing::On);
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event();

  void record() const;
  // Waits until the GPU has passed it. At once when it was never recorded.
  void await() const;
  // Microseconds from this one to a later one, once that has happened.
  double until(const Event& later) const;

 private:
  const Gpu& gpu_;
  CUevent event_ = nullptr;
};

// One kernel on the device, with the launch shape that it carries.
class Kernel {
 public:
  Kernel() = default;
  // Throws Failure with the driver's log for an image that it refuses, and apr::Error for a shape that the device cannot
  // launch.
  Kernel(const Gpu& gpu, const KernelImage& image, const std::string& summary);
  Kernel(Kernel&& other) noexcept { swap(other); }
  Kernel& operator=(Kernel&& other) noexcept { return swap(other), *this; }
  ~Kernel();

  const LaunchShape& shape() const { return shape_; }

  // Of a generic kernel, before its first launch.
  void set_generic_shape(const GenericShape& shape);

  // args: the kernel's one struct. rows: in use, for shapes that depend on it. after_kernel: what precedes it in the stream
  // is a kernel, so that a programmatic dependent launch is possible.
  void launch(const Gpu& gpu, const void* args, uint32_t rows, bool after_kernel) const;

 private:
  void swap(Kernel& other) noexcept {
    std::swap(gpu_, other.gpu_), std::swap(module_, other.module_), std::swap(function_, other.function_),
        std::swap(shape_, other.shape_), std::swap(summary_, other.summary_);
  }
  const Gpu* gpu_ = nullptr;
  std::string summary_;  // for errors
  CUmodule module_ = nullptr;
  CUfunction function_ = nullptr;
  LaunchShape shape_{};
};

}  // namespace apr::cuda
