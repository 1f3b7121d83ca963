#include "device.h"

#include <cstdarg>
#include <cstring>
#include <system_error>

#include "failure.h"
#include "memory.h"

using namespace apr::cpu;

namespace apr::cpu {

const Kernels& kernels_of(apr_isa isa) {
#if defined(__x86_64__)
  switch (isa) {
    case APR_ISA_PORTABLE:
      return portable_kernels();
    case APR_ISA_AVX2:
      return avx2_kernels();
    case APR_ISA_AVX512:
      return avx512_kernels();
  }
#endif
  (void)isa;
  return portable_kernels();
}

}  // namespace apr::cpu

namespace {

constexpr uint32_t kMostThreads = 1024;

apr_isa parse_isa(const char* value) {
  for (const apr_isa isa : {APR_ISA_PORTABLE, APR_ISA_AVX2, APR_ISA_AVX512})
    if (std::strcmp(value, isa_name(isa)) == 0) return isa;
  fail(APR_INVALID, "isa is '%s'; it can be portable, avx2 or avx512", value);
}

bool parse_copied(const char* value) {
  if (std::strcmp(value, "mapped") == 0) return false;
  if (std::strcmp(value, "copied") == 0) return true;
  fail(APR_INVALID, "weights is '%s'; it can be mapped or copied", value);
}

bool parse_flag(const char* key, const char* value) {
  if (std::strcmp(value, "0") == 0) return false;
  if (std::strcmp(value, "1") == 0) return true;
  fail(APR_INVALID, "%s is '%s'; it can be 0 or 1", key, value);
}

}  // namespace

apr_device::apr_device(const apr_device_options& options)
    : topology(read_topology()), isa(topology.isa), log_(options.log), log_user_(options.log_user) {
  if (options.index != 0) fail(APR_NO_DEVICE, "there is one device, 0; %u was asked for", options.index);
  if (options.n_settings && !options.settings) fail(APR_INVALID, "settings are missing");
  for (uint32_t i = 0; i < options.n_settings; ++i) {
    const apr_setting& s = options.settings[i];
    if (!s.key || !s.value) fail(APR_INVALID, "setting %u has no key or no value", i);
    if (std::strcmp(s.key, "isa") == 0) isa = std::min(parse_isa(s.value), topology.isa);
    if (std::strcmp(s.key, "weights") == 0) copies_weights = parse_copied(s.value);
    if (std::strcmp(s.key, "time_kernels") == 0) time_kernels = parse_flag(s.key, s.value);
  }
  kernels = &kernels_of(isa);
  if (options.threads > kMostThreads)
    fail(APR_INVALID, "%u threads were asked for; at most %u are possible", options.threads, kMostThreads);
  const uint32_t threads = options.threads ? options.threads : topology.default_threads();
  const uint32_t cpus =
      topology.quota > 0 ? std::min(topology.cpus, topology.default_threads()) : topology.cpus;
  try {
    pool = std::make_unique<ThreadPool>(threads, cpus);
  } catch (const std::system_error& e) {
    fail(APR_FAILED, "cannot start %u threads: %s", threads, e.what());
  }
}

void apr_device::info(apr_device_info& out) const {
  copy_text(out.name, sizeof(out.name), topology.model.c_str());
  const std::string threads =
      std::to_string(pool->threads()) + (pool->threads() == 1 ? " thread" : " threads");
  const std::string detail = threads + "; kernels for " + isa_name(isa) + "; " +
                             (topology.features.empty() ? "no vector features in use" : topology.features);
  copy_text(out.detail, sizeof(out.detail), detail.c_str());
  copy_text(out.arch, sizeof(out.arch), isa_name(isa));
  copy_text(out.software, sizeof(out.software), (threads + "; " + __VERSION__).c_str());
  const SystemMemory memory = read_memory();
  out.memory_total = memory.total;
  out.memory_free = memory.available;
  out.units = topology.cores;
}

void apr_device::log(int level, const char* format, ...) const {
  if (!log_) return;
  char text[512];
  va_list args;
  va_start(args, format);
  std::vsnprintf(text, sizeof(text), format, args);
  va_end(args);
  log_(log_user_, level, text);
}
