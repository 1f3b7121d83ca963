// What this machine has of all that the backend builds on, and whether a lack is a fault: a machine without an NVIDIA GPU
// needs no driver, and one without a driver needs no compiler.
#include "plugins/backend-cuda/diagnose.h"

#include <fmt/format.h>

#include <boost/dll/shared_library.hpp>
#include <filesystem>
#include <fstream>

#include "plugins/backend-cuda/compiler.h"
#include "plugins/backend-cuda/driver.h"
#include "plugins/backend-cuda/failure.h"
#include "plugins/backend-cuda/session.h"

namespace apr::cuda {

namespace fs = std::filesystem;

namespace {

// A word of a file of sysfs: "0x10de".
std::string word_of(const fs::path& file) {
  std::string word;
  std::ifstream(file) >> word;
  return word;
}

// "" where nothing says that an NVIDIA GPU is here.
std::string sign_of_hardware() {
  std::error_code failure;
  for (const char* path : {"/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/dxg"})
    if (fs::exists(path, failure)) return path;
  constexpr const char* kPci = "/sys/bus/pci/devices";
  for (fs::directory_iterator it(kPci, failure), end; !failure && it != end; it.increment(failure)) {
    // 0x03....: display controllers, which GPUs without a display are too.
    if (word_of(it->path() / "vendor") == "0x10de" && word_of(it->path() / "class").starts_with("0x03"))
      return "PCI device " + it->path().filename().string();
  }
  return "";
}

bool library_opens(const char* name) {
  boost::dll::fs::error_code code;
  boost::dll::shared_library library;
  library.load(name, boost::dll::load_mode::rtld_lazy | boost::dll::load_mode::search_system_folders, code);
  return !code;
}

}  // namespace

void diagnose(const std::string& data_dir, const FindingFn& tell) {
  const std::string hardware = sign_of_hardware();
  int driver_version = 0;
  bool usable = false;
  try {
    const Driver& d = driver();
    driver_version = d.version;
    int count = 0;
    d.check(d.cuDeviceGetCount(&count), "counting GPUs");
    usable = count > 0;
    if (usable)
      tell(APR_FINDING_GOOD, "driver",
           fmt::format("CUDA {}, {}; {} GPU{}", d.version_text(), d.file, count, count == 1 ? "" : "s"), "");
    else
      tell(APR_FINDING_PROBLEM, "driver",
           fmt::format("CUDA {}, {}: it sees no GPU", d.version_text(), d.file),
           "check nvidia-smi and CUDA_VISIBLE_DEVICES; in a container, start it with GPU access");
  } catch (const std::exception& error) {
    const bool here = library_opens("libcuda.so.1");
    if (here || !hardware.empty())
      tell(APR_FINDING_PROBLEM, "driver", error.what(),
           here ? "the driver is installed and cannot be used: nvidia-smi tells more"
                : fmt::format("there is an NVIDIA GPU ({}): install its driver", hardware));
    else
      tell(APR_FINDING_ABSENT, "driver", "no NVIDIA driver, and no sign of an NVIDIA GPU", "");
  }
  const NvrtcSearch& found = nvrtc(driver_version);
  if (found.library != nullptr)
    tell(APR_FINDING_GOOD, "compiler",
         fmt::format("{} ({}), sm_{} to sm_{}", compiler_version(*found.library), found.library->file,
                     found.library->architectures.empty() ? 0 : found.library->architectures.front(),
                     found.library->architectures.empty() ? 0 : found.library->architectures.back()),
         "");
  else
    tell(usable ? APR_FINDING_PROBLEM : APR_FINDING_ABSENT, "compiler", found.reason,
         usable ? "without it plain kernels serve, many times slower" : "");
  try {
    const Registry registry = checked_registry(data_dir);
    tell(APR_FINDING_GOOD, "templates", fmt::format("{} in {}", registry.templates.size(), registry.folder),
         "");
  } catch (const std::exception& error) {
    tell(APR_FINDING_PROBLEM, "templates", error.what(), "install or bundle apr as one folder");
  }
}

}  // namespace apr::cuda
