// The backend's face at the waist: C functions that catch everything.
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <new>

#include "plugins/backend-cuda/diagnose.h"
#include "plugins/backend-cuda/failure.h"
#include "plugins/backend-cuda/listing.h"
#include "plugins/backend-cuda/session.h"

// A real device; or one that is only spoken of (setting arch), for which kernels are decided and compiled, but not run.
struct apr_device {
  std::unique_ptr<apr::cuda::Device> real;
  std::unique_ptr<apr::cuda::Workshop> paper;
};
struct apr_session {
  apr_device* device;
  std::unique_ptr<apr::cuda::Session> real;
  std::unique_ptr<apr::cuda::Decision> paper;
  std::map<uint32_t, apr::cuda::KernelCode> code;  // that was asked for
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
// (bound of its size, 0 = none), no_graph, no_fusion, prebuilt, time_kernels (0 or 1), arch (sm_90a: no device is opened, and
// sessions only tell what they would run on such a one).
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
        throw failure(APR_INVALID, "setting kernel_cache_mb={}: it is a number of megabytes, 0 for no bound",
                      s.value);
      settings.cache_bytes = megabytes << 20;
    }
    if (std::strcmp(s.key, "arch") == 0) settings.arch = s.value;
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
      throw failure(APR_NO_DEVICE,
                    "the NVIDIA driver (CUDA {}) sees no GPU; check nvidia-smi and CUDA_VISIBLE_DEVICES",
                    d.version_text());
    *count = static_cast<uint32_t>(n);
  });
}

apr_status open(const apr_device_options* options, apr_device** device, apr_error* error) {
  *device = nullptr;
  return guarded(error, [&] {
    LogFn log;
    if (options->log != nullptr)
      log = [fn = options->log, user = options->log_user](int level, const std::string& message) {
        fn(user, level, message.c_str());
      };
    Settings settings = parse_settings(*options);
    auto opened = std::make_unique<apr_device>();
    if (settings.arch.empty()) {
      opened->real = std::make_unique<Device>(options->index, std::move(settings), std::move(log));
    } else {
      opened->paper = std::make_unique<Workshop>(std::move(settings), std::move(log));
      opened->paper->find_compiler(0);
      opened->paper->target = paper_target(
          opened->paper->settings.arch,
          opened->paper->nvrtc == nullptr ? std::vector<int>{} : opened->paper->nvrtc->architectures);
    }
    *device = opened.release();
  });
}

void close(apr_device* device) { delete device; }

void copy_text(char* to, size_t bytes, const std::string& text) {
  std::snprintf(to, bytes, "%s", text.c_str());
}

std::string compiler_text(const Workshop& w) {
  return w.nvrtc == nullptr ? "no NVRTC" : compiler_version(*w.nvrtc) + " (" + w.nvrtc->file + ")";
}

template <typename T>
void hand_out(T filled, T* to) {
  filled.struct_size = to->struct_size;
  std::memcpy(to, &filled, std::min<size_t>(to->struct_size, sizeof filled));
}

// A caller's struct, whatever its version.
template <typename T>
T taken(const T* from) {
  T to{};
  std::memcpy(&to, from, std::min<size_t>(from->struct_size, sizeof to));
  return to;
}

[[noreturn]] void no_device(const Workshop& w) {
  throw failure(APR_UNSUPPORTED, "kernels are only decided for {} here: there is no device to run them",
                w.target.arch);
}

Device& real(apr_device* device) {
  if (device->real == nullptr) no_device(*device->paper);
  device->real->gpu.make_current();
  return *device->real;
}
Session& real(apr_session* session) {
  (void)real(session->device);
  return *session->real;
}

apr_status device_info(apr_device* device, apr_device_info* info, apr_error* error) {
  return guarded(error, [&] {
    apr_device_info filled{};
    const Workshop& w = device->real != nullptr ? *device->real : *device->paper;
    copy_text(filled.arch, sizeof filled.arch, w.target.arch);
    if (device->real == nullptr) {
      copy_text(filled.name, sizeof filled.name, fmt::format("no device, {}", w.target.text()));
      copy_text(filled.detail, sizeof filled.detail, compiler_text(w));
      copy_text(filled.software, sizeof filled.software, w.compiler());
      filled.units = static_cast<uint32_t>(w.target.multiprocessors);
      hand_out(filled, info);
      return;
    }
    const Gpu& gpu = real(device).gpu;
    copy_text(filled.name, sizeof filled.name, gpu.name());
    copy_text(filled.detail, sizeof filled.detail,
              fmt::format("driver CUDA {}, {}", gpu.driver().version_text(), compiler_text(w)));
    copy_text(filled.software, sizeof filled.software,
              fmt::format("driver CUDA {}, {}", gpu.driver().version_text(), w.compiler()));
    filled.memory_total = gpu.memory_total();
    filled.memory_free = gpu.memory_free();
    filled.units = static_cast<uint32_t>(gpu.multiprocessors());
    hand_out(filled, info);
  });
}

apr_status measure_bandwidth(apr_device* device, double* gbs, apr_error* error) {
  return guarded(error, [&] { *gbs = real(device).measure_bandwidth(); });
}

apr_status load(apr_device* device, const apr_plan* plan, const apr_load_options* given,
                apr_session** session, apr_error* error) {
  *session = nullptr;
  return guarded(error, [&] {
    const apr_load_options options = taken(given);
    // Kernels with a CTA row for each token: a grid's second dimension ends at 65535.
    constexpr uint32_t kMostPositions = 1u << 30, kMostSequences = 1u << 20, kMostBatch = 65535;
    const auto check = [](uint32_t given, uint32_t most, const char* what) {
      if (given == 0 || given > most)
        throw failure(APR_INVALID, "{} is {}; 1 to {} are possible", what, given, most);
    };
    check(options.n_ctx, kMostPositions, "n_ctx");
    check(options.n_sequences, kMostSequences, "n_sequences");
    check(options.n_batch, kMostBatch, "n_batch");
    if (options.n_top > 0) check(options.n_top, std::min(APR_MAX_TOP, plan->n_vocab), "n_top (candidates)");
    auto loaded = std::make_unique<apr_session>();
    loaded->device = device;
    if (device->real != nullptr) {
      loaded->real = std::make_unique<Session>(real(device), *plan, options);
    } else {
      const Workshop& w = *device->paper;
      const DecideOptions how{w.generic(),     !w.settings.no_fusion, options.precise != 0,
                              options.n_batch, w.compiler(),          w.log};
      loaded->paper = std::make_unique<Decision>(decide(*plan, options, w.registry, w.target, how));
    }
    *session = loaded.release();
  });
}

void unload(apr_session* session) {
  if (session == nullptr) return;
  try {
    if (session->real != nullptr) session->real->device().gpu.make_current();
  } catch (const std::exception&) {
    // The context is gone; so is what was allocated in it.
  }
  delete session;
}

apr_status step(apr_session* session, const apr_batch* batch, apr_step_output* output, apr_error* error) {
  return guarded(error, [&] { real(session).step(*batch, *output); });
}

apr_status tap(apr_session* session, apr_tap_fn fn, void* user, apr_error* error) {
  return guarded(error, [&] { real(session).tap(fn, user); });
}

apr_status session_info(apr_session* session, apr_session_info* info, apr_error* error) {
  return guarded(error, [&] {
    apr_session_info filled{};
    if (session->real != nullptr)
      filled = session->real->info();
    else
      filled.token_bytes = session->paper->token_bytes,
      filled.n_kernels = static_cast<uint32_t>(session->paper->explained.size());
    hand_out(filled, info);
  });
}

const Explained& entry(const apr_session* session, uint32_t index) {
  const std::vector<Explained>& all =
      session->real != nullptr ? session->real->explained() : session->paper->explained;
  if (index >= all.size())
    throw failure(APR_INVALID, "there is no kernel {}: the session has {}", index, all.size());
  return all[index];
}

apr_status kernel(apr_session* session, uint32_t index, apr_kernel_info* info, apr_error* error) {
  return guarded(error, [&] { hand_out(entry(session, index).info(), info); });
}

apr_status templates(const apr_setting* settings, uint32_t n_settings, apr_kernel_template_fn fn, void* user,
                     apr_error* error) {
  return guarded(error, [&] {
    apr_device_options options{};
    options.settings = settings, options.n_settings = n_settings;
    list_templates(read_registry(find_template_folder(parse_settings(options).data_dir)), fn, user);
  });
}

apr_status code(apr_session* session, uint32_t index, apr_kernel_code* out, apr_error* error) {
  return guarded(error, [&] {
    const Explained& wanted = entry(session, index);
    const Workshop& w = session->real != nullptr ? *session->device->real : *session->device->paper;
    auto found = session->code.find(index);
    if (found == session->code.end()) found = session->code.emplace(index, code_of(w, wanted)).first;
    hand_out(found->second.info(), out);
  });
}

apr_status measure(apr_session* session, uint32_t index, uint32_t repetitions,
                   const apr_kernel_rule* const* candidates, uint32_t n, apr_measurement* results,
                   apr_error* error) {
  return guarded(error, [&] { real(session).measure(index, repetitions, candidates, n, results); });
}

apr_status diagnose(const apr_setting* settings, uint32_t n_settings, apr_finding_fn fn, void* user,
                    apr_error* error) {
  return guarded(error, [&] {
    apr_device_options options{};
    options.settings = settings, options.n_settings = n_settings;
    cuda::diagnose(
        parse_settings(options).data_dir,
        [&](apr_finding_level level, const char* what, const std::string& found, const std::string& advice) {
          const apr_finding finding = {sizeof(apr_finding), level, what, found.c_str(), advice.c_str()};
          fn(user, &finding);
        });
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
                                  kernel,
                                  templates,
                                  code,
                                  measure,
                                  diagnose};
constexpr const apr_backend* kBackends[] = {&kBackend};

}  // namespace

}  // namespace apr::cuda

APR_PLUGIN_ENTRY = {sizeof(apr_plugin),
                    APR_ABI_MAJOR,
                    APR_ABI_MINOR,
                    "backend-cuda",
                    "0.1.0",
                    "Apache-2.0",
                    nullptr,
                    0,
                    apr::cuda::kBackends,
                    1};
