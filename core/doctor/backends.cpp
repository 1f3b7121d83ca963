// Backends tell of themselves: nothing here knows what a device is.
#include <fmt/format.h>

#include <cstddef>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/doctor/doctor.h"
#include "core/runtime/session.h"

namespace apr {

namespace {

HealthLevel level_of(apr_finding_level level) {
  switch (level) {
    case APR_FINDING_GOOD:
      return HealthLevel::Good;
    case APR_FINDING_ABSENT:
      return HealthLevel::Absent;
    case APR_FINDING_PROBLEM:
      return HealthLevel::Problem;
  }
  return HealthLevel::Problem;
}

struct Told {
  const HealthFn* tell;
  std::string area;
  bool any = false;     // the backend told of itself
  bool absent = false;  // something that it builds on is not here
  bool problem = false;
};

// Called from a plugin: nothing may be thrown through it.
void collect(void* user, const apr_finding* finding) noexcept {
  auto& told = *static_cast<Told*>(user);
  told.any = true;
  told.absent = told.absent || finding->level == APR_FINDING_ABSENT;
  told.problem = told.problem || finding->level == APR_FINDING_PROBLEM;
  (*told.tell)({told.area, printable(finding->what, 64), level_of(finding->level),
                printable(finding->found, kLongPath), printable(finding->advice, kLongPath)});
}

void examine_device(const apr_backend& backend, uint32_t index, const DoctorRequest& request,
                    const HealthFn& tell) {
  const std::string area = backend.name, what = fmt::format("device {}", index);
  const bool needed = area == request.reference;
  try {
    DeviceRequest wanted;
    wanted.index = index;
    wanted.settings = request.settings;
    const Device device(backend, wanted);
    const apr_device_info info = device.info();
    tell({area, what, HealthLevel::Good,
          printable(fmt::format("{} ({}), {} units; {}", info.name, info.arch, info.units, info.detail), 600),
          ""});
    HealthFinding memory{
        area,
        "memory",
        HealthLevel::Good,
        fmt::format("{} free of {}", human_bytes(info.memory_free), human_bytes(info.memory_total)),
        "",
        false,
        static_cast<double>(info.memory_free),
        "bytes"};
    if (info.memory_free < 1ull << 30) {
      memory.level = HealthLevel::Problem;
      memory.advice = "end what holds it, or use smaller models";
    }
    tell(std::move(memory));
    const double gbs = device.measure_bandwidth();
    tell({area, "bandwidth", HealthLevel::Good,
          fmt::format("{:.1f} GB/s read, measured: a model of 1 GB decodes at most {:.0f} tokens a second",
                      gbs, gbs),
          "", false, gbs, "GB/s"});
  } catch (const Error& error) {
    tell({area, what, HealthLevel::Problem, printable(error.what(), kLongPath),
          needed ? "nothing runs until this is mended" : "other backends are not affected", needed});
  }
}

}  // namespace

void examine_backends(const DoctorRequest& request, const HealthFn& tell) {
  bool reference = false;
  // By name: a library that cannot be opened was told of with the plugins.
  std::vector<std::string> names;
  for (const FoundPlugin& plugin : request.catalog->plugins())
    if (plugin.manifest.kind == PluginKind::Backend && plugin.table != nullptr)
      for (uint32_t i = 0; i < plugin.table->n_backends; ++i)
        names.push_back(plugin.table->backends[i]->name);
  for (const std::string& name : names) {
    const apr_backend* backend = nullptr;
    try {
      backend = &request.catalog->backend(name);
    } catch (const Error&) {
      continue;  // two plugins provide it: told of with the plugins
    }
    reference = reference || name == request.reference;
    Told told{&tell, name};
    apr_error error{};
    error.struct_size = sizeof error;
    // Backends of an earlier minor version end before it.
    if (backend->struct_size >= offsetof(apr_backend, diagnose) + sizeof backend->diagnose &&
        backend->diagnose != nullptr) {
      std::vector<apr_setting> settings;
      for (const auto& [key, value] : request.settings) settings.push_back({key.c_str(), value.c_str()});
      if (backend->diagnose(settings.data(), static_cast<uint32_t>(settings.size()), collect, &told,
                            &error) != APR_OK)
        tell({name, "diagnosis", HealthLevel::Problem, printable(error.message, kLongPath), ""});
    }
    uint32_t count = 0;
    if (backend->devices(&count, &error) != APR_OK) {
      // The backend's own findings say more, and whether a lack is a fault.
      if (!told.absent && !told.problem)
        tell({name, "devices", HealthLevel::Problem, printable(error.message, kLongPath), "",
              name == request.reference});
      continue;
    }
    for (uint32_t index = 0; index < count; ++index) examine_device(*backend, index, request, tell);
  }
  if (!reference)
    tell({request.reference, "backend", HealthLevel::Problem, "no plugin provides this backend",
          "install or bundle apr as one folder; `aprctl plugins` shows what was searched", true});
}

}  // namespace apr
