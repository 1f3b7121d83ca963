// The CPU backend: any plan, on the processor's cores. See program.h for how a plan becomes phases of parallel tasks.
//
// Settings of open:
//   isa = portable | avx2 | avx512    the highest instruction set of kernels, the formats' and the backend's own; what the
//                                     processor lacks is not used in any case
//   weights = mapped | copied         mapped (default): read where the caller has them, as a rule a file's mapping. copied: to
//                                     memory with large pages, which decodes about a tenth faster and takes that memory again
#include <apr/backend.h>

#include "device.h"
#include "diagnose.h"
#include "failure.h"
#include "session.h"

using namespace apr::cpu;

namespace {

apr_status devices(uint32_t* count, apr_error* error) {
  return guard(error, [&] {
    if (!count) fail(APR_INVALID, "count is null");
    *count = 1;
  });
}

apr_status open(const apr_device_options* options, apr_device** device, apr_error* error) {
  return guard(error, [&] {
    if (!device) fail(APR_INVALID, "device is null");
    *device = nullptr;
    *device = new apr_device(read_struct(options, "device options"));
  });
}

void close(apr_device* device) { delete device; }

apr_status device_info(apr_device* device, apr_device_info* info, apr_error* error) {
  return guard(error, [&] {
    apr_device_info out{};
    device->info(out);
    write_struct(out, info, "device info");
  });
}

apr_status measure_bandwidth(apr_device* device, double* gbs, apr_error* error) {
  return guard(error, [&] { *gbs = device->measure_bandwidth(); });
}

apr_status load(apr_device* device, const apr_plan* plan, const apr_load_options* options,
                apr_session** session, apr_error* error) {
  return guard(error, [&] {
    if (!session) fail(APR_INVALID, "session is null");
    *session = nullptr;
    *session = new apr_session(*device, plan, read_struct(options, "load options"));
  });
}

void unload(apr_session* session) { delete session; }

apr_status step(apr_session* session, const apr_batch* batch, apr_step_output* output, apr_error* error) {
  return guard(error, [&] {
    apr_step_output out = read_struct(output, "step output");
    session->step(read_struct(batch, "a batch"), out);
  });
}

apr_status tap(apr_session* session, apr_tap_fn fn, void* user, apr_error* error) {
  return guard(error, [&] { session->tap(fn, user); });
}

apr_status session_info(apr_session* session, apr_session_info* info, apr_error* error) {
  return guard(error, [&] {
    apr_session_info out{};
    session->info(out);
    write_struct(out, info, "session info");
  });
}

apr_status kernel(apr_session* session, uint32_t index, apr_kernel_info* info, apr_error* error) {
  return guard(error, [&] {
    apr_kernel_info out{};
    session->kernel(index, out);
    write_struct(out, info, "kernel info");
  });
}

apr_status templates(const apr_setting*, uint32_t, apr_kernel_template_fn fn, void* user, apr_error* error) {
  return guard(error, [&] { list_templates(fn, user); });
}

apr_status code(apr_session* session, uint32_t index, apr_kernel_code* out, apr_error* error) {
  return guard(error, [&] {
    apr_kernel_code filled{};
    session->code(index, filled);
    write_struct(filled, out, "kernel code");
  });
}

apr_status measure(apr_session* session, uint32_t index, uint32_t repetitions,
                   const apr_kernel_rule* const* candidates, uint32_t n, apr_measurement* results,
                   apr_error* error) {
  return guard(error, [&] { session->measure(index, repetitions, candidates, n, results); });
}

apr_status diagnose(const apr_setting*, uint32_t, apr_finding_fn fn, void* user, apr_error* error) {
  return guard(error, [&] { apr::cpu::diagnose(fn, user); });
}

const apr_backend kBackend = {sizeof(apr_backend),
                              "cpu",
                              "this machine's processor, all formats",
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
const apr_backend* const kBackends[] = {&kBackend};

}  // namespace

APR_PLUGIN_ENTRY = {sizeof(apr_plugin),
                    APR_ABI_MAJOR,
                    APR_ABI_MINOR,
                    "backend-cpu",
                    "0.1.0",
                    "Apache-2.0",
                    nullptr,
                    0,
                    kBackends,
                    1};
