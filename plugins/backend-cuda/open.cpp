// Opening a device: templates, compiler, cache; and the kernel that measures its memory.
#include <fmt/format.h>

#include <algorithm>

#include "plugins/backend-cuda/failure.h"
#include "plugins/backend-cuda/session.h"

namespace apr::cuda {

namespace {

void check_args_header(const Registry& registry) {
  // Kernels built from another one would read other offsets.
  const std::string mine = args_header();
  for (const NamedText& header : registry.headers)
    if (header.name == "args.h" && header.text == mine) return;
  throw Error(
      "kernel templates {}: args.h differs from the one that this backend was built with; the templates "
      "belong to another version of the program",
      registry.folder);
}

}  // namespace

Registry checked_registry(const std::string& data_dir) {
  Registry registry = read_registry(find_template_folder(data_dir));
  check_args_header(registry);
  return registry;
}

Workshop::Workshop(Settings given, LogFn logger)
    : settings(std::move(given)), log(std::move(logger)), registry(checked_registry(settings.data_dir)) {}

std::string Workshop::compiler() const { return nvrtc == nullptr ? "none" : compiler_version(*nvrtc); }

void Workshop::find_compiler(int driver_version) {
  const NvrtcSearch& search = cuda::nvrtc(driver_version);
  nvrtc = search.library;
  nvrtc_reason = search.reason;
}

Device::Device(uint32_t index, Settings given, LogFn logger)
    : Workshop(std::move(given), std::move(logger)), gpu(index), threads(settings.threads) {
  find_compiler(gpu.driver().version);
  target = make_target(gpu.capability(), gpu.multiprocessors(), gpu.max_shared(),
                       nvrtc == nullptr ? std::vector<int>{} : nvrtc->architectures);
  cache = std::make_unique<KernelCache>(KernelCache::Options{settings.cache_folder, settings.cache_bytes,
                                                             compiler(), [this](const std::string& message) {
                                                               const std::lock_guard lock(notices_mutex_);
                                                               notices_.push_back(message);
                                                             }});
}

std::vector<KernelImage> Device::build(const std::vector<Specialised>& sources,
                                       const std::function<void(size_t, size_t)>& progress,
                                       JitReport& report) {
  const bool needs_compiler =
      std::any_of(sources.begin(), sources.end(), [](const Specialised& s) { return !s.literal; });
  if (nvrtc == nullptr && needs_compiler)
    throw failure(APR_UNSUPPORTED, "kernels cannot be compiled: {}", nvrtc_reason);
  const CompileFn compile = nvrtc == nullptr ? CompileFn() : nvrtc_compiler(*nvrtc);
  return build_kernels(sources, *cache, compile, compiler(), threads.threads(), progress, report);
}

void Device::tell_notices() {
  std::vector<std::string> notices;
  {
    const std::lock_guard lock(notices_mutex_);
    notices.swap(notices_);
  }
  for (const std::string& notice : notices)
    if (log) log(2, notice);
}

double Device::measure_bandwidth() {
  const KernelSpec spec = {Op::ReadBandwidth, View::None, 0, 0, {}, {}};
  std::string why;
  const std::optional<KernelConfig> config = choose(registry, spec, target, &why);
  if (!config) throw failure(APR_UNSUPPORTED, "no template reads memory:{}", why);
  JitReport report;
  const std::vector<KernelImage> images = build({specialise(registry, spec, *config, target)}, {}, report);
  tell_notices();
  const Kernel kernel(gpu, images[0], "read_bandwidth");
  // Forty times the largest L2, so that nothing is read from there; half of the free memory where that is less.
  const uint64_t bytes = std::min<uint64_t>(2ull << 30, gpu.memory_free() / 2) / 4096 * 4096;
  const DeviceMemory memory(gpu, bytes, "memory to read"), sink(gpu, 256, "memory to read");
  const Driver& d = gpu.driver();
  d.check(d.cuMemsetD8Async(memory.address(), 0x5a, bytes, gpu.stream()), "filling memory");
  const BandwidthArgs args = {memory.at<uint8_t>(), bytes, sink.at<uint32_t>()};
  const Event begin(gpu), end(gpu);
  std::vector<double> rates;
  // The first runs bring the clocks up.
  for (int run = 0; run < 24; ++run) {
    begin.record();
    kernel.launch(gpu, &args, 1, false);
    end.record();
    const double microseconds = begin.until(end);
    if (run >= 4) rates.push_back(static_cast<double>(bytes) / (1e3 * microseconds));
  }
  std::nth_element(rates.begin(), rates.begin() + static_cast<ptrdiff_t>(rates.size() / 2), rates.end());
  return rates[rates.size() / 2];
}

}  // namespace apr::cuda
