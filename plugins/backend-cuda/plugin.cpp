// The backend's face at the waist: C functions that catch everything.
#include <cstdio>
#include <cstring>
#include <new>

#include "plugins/backend-cuda/failure.h"
#include "plugins/backend-cuda/session.h"

struct apr_device {
  apr::cuda::Device device;
};
struct apr_session {
  apr::cuda::Session session;
};

namespace apr::cuda {

namespace {

apr_status fail(apr_error* error, apr_status status, const char* message) {
  if (error != nullptr && error->struct_size > offsetof(apr_error, message) + 1)
    std::snprintf(error->message, error->struct_size - offsetof(apr_error, message), "%s", message);
  return status;
}

template <typename Body>
apr_status guarded(apr_error* error, const Body& body) {
  try {
    body();
    return APR_OK;
  } catch (const Failure& e) {
    return fail(error, e.status(), e.what());
  } catch (const Error& e) {
    return fail(error, e.kind() == ErrorKind::Usage ? APR_INVALID : APR_FAILED, e.what());
  } catch (const std::bad_alloc&) {
    return fail(error, APR_NO_MEMORY, "not enough host memory");
  } catch (const std::exception& e) {
    return fail(error, APR_FAILED, e.what());
  }
}

bool flag(const apr_setting& setting) {
  if (std::strcmp(setting.value, "1") == 0) return true;
  if (std::strcmp(setting.value, "0") == 0) return false;
  throw failure(APR_INVALID, "setting {}={}: it is 0 or 1", setting.key, setting.value);
}

// Settings: data_dir (folder that holds ptx-templates), kernel_cache (absolute folder, "" = memory only), kernel_cache_mb
// (bound of its size, 0 = none), no_graph, no_fusion, prebuilt, time_kernels (0 or 1).
Settings parse_settings(const apr_device_options& options) {
  Settings settings;
  settings.cache_folder = user_cache_folder("kernels");
  settings.threads = options.threads;
  for (uint32_t i = 0; i < options.n_settings; ++i) {
    const apr_setting& s = options.settings[i];
    if (std::strcmp(s.key, "data_dir") == 0) settings.data_dir = s.value;
    if (std::strcmp(s.key, "kernel_cache") == 0) settings.cache_folder = s.value;
    if (std::strcmp(s.key, "kernel_cache_mb") == 0) {
      char* end = nullptr;
      const unsigned long long megabytes = std::strtoull(s.value, &end, 10);
      if (end == s.value || *end != '\0' || megabytes > 1 << 24 || s.value[0] == '-')
        throw failure(APR_INVALID, "setting kernel_cache_mb={}: it is a number of megabytes, 0 for no bound", s.value);
      settings.cache_bytes = megabytes << 20;
    }
    if (std::strcmp(s.key, "no_graph") == 0) settings.no_graph = flag(s);
    if (std::strcmp(s.key, "no_fusion") == 0) settings.no_fusion = flag(s);
    if (std::strcmp(s.key, "prebuilt") == 0) settings.prebuilt = flag(s);
    if (std::strcmp(s.key, "time_kernels") == 0) settings.time_kernels = flag(s);
  }
  return settings;
}

apr_status devices(uint32_t* count, apr_error* error) {
  *count = 0;
  return guarded(error, [&] {
    const Driver& d = driver();
    int n = 0;
    d.check(d.cuDeviceGetCount(&n), "counting GPUs");
    if (n == 0)
      throw failure(APR_NO_DEVICE, "the NVIDIA driver (CUDA {}) sees no GPU; check nvidia-smi and CUDA_VISIBLE_DEVICES", d.version_text());
    *count = static_cast<uint32_t>(n);
  });
}

apr_status open(const apr_device_options* options, apr_device** device, apr_error* error) {
  *device = nullptr;
  return guarded(error, [&] {
    LogFn log;
    if (options->log != nullptr)
      log = [fn = options->log, user = options->log_user](int level, const std::string& message) { fn(user, level, message.c_str()); };
    *device = new apr_device{{options->index, parse_settings(*options), std::move(log)}};
  });
}

void close(apr_device* device) { delete device; }

void copy_text(char* to, size_t bytes, const std::string& text) { std::snprintf(to, bytes, "%s", text.c_str()); }

apr_status device_info(apr_device* device, apr_device_info* info, apr_error* error) {
  return guarded(error, [&] {
    const Device& d = device->device;
    d.gpu.make_current();
    apr_device_info filled{};
    filled.struct_size = info->struct_size;
    copy_text(filled.name, sizeof filled.name, d.gpu.name());
    copy_text(filled.detail, sizeof filled.detail,
              fmt::format("driver CUDA {}, {}", d.gpu.driver().version_text(),
                          d.nvrtc == nullptr ? "no NVRTC" : compiler_version(*d.nvrtc) + " (" + d.nvrtc->file + ")"));
    copy_text(filled.arch, sizeof filled.arch, d.target.arch);
    filled.memory_total = d.gpu.memory_total();
    filled.memory_free = d.gpu.memory_free();
    filled.units = static_cast<uint32_t>(d.gpu.multiprocessors());
    std::memcpy(info, &filled, std::min<size_t>(info->struct_size, sizeof filled));
  });
}

apr_status measure_bandwidth(apr_device* device, double* gbs, apr_error* error) {
  return guarded(error, [&] {
    device->device.gpu.make_current();
    *gbs = device->device.measure_bandwidth();
  });
}

apr_status load(apr_device* device, const apr_plan* plan, const apr_load_options* options, apr_session** session, apr_error* error) {
  *session = nullptr;
  return guarded(error, [&] {
    if (options->n_ctx == 0 || options->n_sequences == 0 || options->n_batch == 0)
      throw failure(APR_INVALID, "n_ctx, n_sequences and n_batch are at least 1");
    device->device.gpu.make_current();
    *session = new apr_session{{device->device, *plan, *options}};
  });
}

void unload(apr_session* session) {
  if (session == nullptr) return;
  try {
    session->session.device().gpu.make_current();
  } catch (const std::exception&) {
    // The context is gone; so is what was allocated in it.
  }
  delete session;
}

apr_status step(apr_session* session, const apr_batch* batch, apr_step_output* output, apr_error* error) {
  return guarded(error, [&] {
    session->session.device().gpu.make_current();
    session->session.step(*batch, *output);
  });
}

apr_status tap(apr_session* session, apr_tap_fn fn, void* user, apr_error* error) {
  return guarded(error, [&] { session->session.tap(fn, user); });
}

apr_status session_info(apr_session* session, apr_session_info* info, apr_error* error) {
  return guarded(error, [&] {
    apr_session_info filled = session->session.info();
    filled.struct_size = info->struct_size;
    std::memcpy(info, &filled, std::min<size_t>(info->struct_size, sizeof filled));
  });
}

apr_status kernel(apr_session* session, uint32_t index, apr_kernel_info* info, apr_error* error) {
  return guarded(error, [&] {
    apr_kernel_info filled = session->session.kernel(index);
    filled.struct_size = info->struct_size;
    std::memcpy(info, &filled, std::min<size_t>(info->struct_size, sizeof filled));
  });
}

constexpr apr_backend kBackend = {sizeof(apr_backend),
                                  "cuda",
                                  "NVIDIA GPUs: kernels specialised for the model and compiled at load",
                                  devices,
                                  open,
                                  close,
                                  device_info,
                                  measure_bandwidth,
                                  load,
                                  unload,
                                  step,
                                  tap,
                                  session_info,
                                  kernel};
constexpr const apr_backend* kBackends[] = {&kBackend};

}  // namespace

}  // namespace apr::cuda

APR_PLUGIN_ENTRY = {sizeof(apr_plugin), APR_ABI_MAJOR, APR_ABI_MINOR, "backend-cuda", "0.1.0", "Apache-2.0", nullptr, 0, apr::cuda::kBackends, 1};
