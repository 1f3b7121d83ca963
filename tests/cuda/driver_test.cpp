// What is said where the driver, the device or the compiler is missing, old or failing: one line with the true reason. The
// answer is kept for a process's life, so each case runs in a process of its own: this program calls itself.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "plugins/backend-cuda/device.h"
#include "plugins/backend-cuda/driver.h"

using namespace apr::cuda;

namespace {

// The message of opening a device in a child with this environment.
std::string said(const std::string& library_path, const std::string& fake) {
  int pipes[2];
  REQUIRE(::pipe(pipes) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(pipes[1], 1);
    ::setenv("LD_LIBRARY_PATH", library_path.c_str(), 1);
    ::setenv("APR_TEST_FAKE_CUDA", fake.c_str(), 1);
    ::execl("/proc/self/exe", "test", "-tc=child: opening a device", "-ns", static_cast<char*>(nullptr));
    ::_exit(127);
  }
  ::close(pipes[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t n; (n = ::read(pipes[0], buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<size_t>(n));
  ::close(pipes[0]);
  ::waitpid(child, nullptr, 0);
  const size_t from = text.find("SAID ");
  REQUIRE_MESSAGE(from != std::string::npos, text);
  return text.substr(from + 5, text.find('\n', from) - from - 5);
}

}  // namespace

TEST_CASE("child: opening a device" * doctest::skip(true)) {
  try {
    const Gpu gpu(0);
    const NvrtcSearch& search = nvrtc(gpu.driver().version);
    std::printf("SAID %s; %s\n", gpu.name().c_str(),
                search.library == nullptr ? search.reason.c_str() : search.library->file.c_str());
  } catch (const std::exception& e) {
    std::printf("SAID %s\n", e.what());
  }
}

TEST_CASE("no driver, an old one, no device, one that does not start") {
  const std::string fake = APR_TEST_FAKE_DRIVER;
  CHECK(said(fake, "").starts_with("Fake GPU; "));
  CHECK(said(fake, "version=11040") ==
        "the NVIDIA driver is too old: it supports CUDA 11.4, and 12.3 is needed; install a newer driver");
  CHECK(said(fake, "devices=0") ==
        "the NVIDIA driver (CUDA 13.0) sees no GPU; check nvidia-smi and CUDA_VISIBLE_DEVICES");
  CHECK(said(fake, "fail=cuInit") ==
        "the NVIDIA driver does not start: fake error (CUDA_ERROR_FAKE); see nvidia-smi");
}

TEST_CASE("without a driver's library the loader's reason is given") {
  const std::string message = said("/nonexistent", "");
  // On a machine with a driver this case says something else, and that is right.
  if (message.find("libcuda.so.1") == std::string::npos) return;
  CHECK(message ==
        "no NVIDIA driver here: libcuda.so.1: cannot open shared object file: No such file or directory; "
        "install the NVIDIA driver (CUDA 12.3 or newer), and in a "
        "container start it with GPU access");
}

TEST_CASE("NVRTC is found where it is, the fake one included") {
  CHECK(said(std::string(APR_TEST_FAKE_DRIVER) + ":" + APR_TEST_FAKE_NVRTC, "").find(APR_TEST_FAKE_NVRTC) !=
        std::string::npos);
}
