// The conformance test of a plugin: does a weight format keep what include/apr/ promises for it? It judges
// through the tables that a plugin exports, so it knows no format and no device, and serves the project's own
// formats as well as those of strangers.
//
// Everything is deterministic: random data comes from fixed seeds.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "apr/backend.h"
#include "apr/quant.h"
#include "core/conformance/report.h"
#include "core/plugin/manifest.h"

namespace apr::conformance {

// The library as a file, then its tables: what it exports and needs, where it searches, who may write it, and
// whether it holds what its plugin.toml says. Null when it was not opened. The group is "library".
const apr_plugin* check_library(const Manifest& manifest, Listener& listener);

struct FormatOptions {
  // Compiles the codec's text, to try every layout on this processor; "" for $CXX, c++, g++ or clang++,
  // whichever is found first.
  std::string compiler;
};

// A format on this processor: geometry, rows, quantiser, kernels of every instruction set that runs here,
// codec and layouts. The group is the format's name.
void check_format(const apr_quant_format& format, const FormatOptions& options, Listener& listener);

// The first check on a device: not run where there is none.
inline constexpr const char* kDeviceCheck = "device";

struct DeviceOptions {
  std::vector<std::pair<std::string, std::string>> settings;  // of the backend
  uint32_t index = 0;                                         // of its devices
};

// A format on a backend's device, in small plans: rows of an embedding as dequantised, products of every
// number of rows against float64, in every layout that the device uses. Where the backend has no device, one
// result that says so, and whether its kernels compile with this codec. The group is "FORMAT on BACKEND".
void check_on_device(const apr_quant_format& format, const apr_backend& backend, const DeviceOptions& options,
                     Listener& listener);

}  // namespace apr::conformance
