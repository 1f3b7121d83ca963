// The parts of check_format and check_on_device, one file each.
#pragma once

#include <string>

#include "apr/backend.h"
#include "apr/quant.h"
#include "core/conformance/conformance.h"
#include "core/conformance/report.h"

namespace apr::conformance {

void check_rows(const apr_quant_format& format, Recorder& recorder);  // dequantize, validate
void check_quantizer(const apr_quant_format& format,
                     Recorder& recorder);  // quantize: what it takes, refuses, touches
void check_error(const apr_quant_format& format, Recorder& recorder);  // quantize: how well
void check_kernels(const apr_quant_format& format,
                   Recorder& recorder);  // of every instruction set that runs here
void check_codec(const apr_quant_format& format, const std::string& compiler, Recorder& recorder);

// Where a backend has no device, but can decide and compile kernels for one: do they compile with this codec?
void check_compiles(const apr_quant_format& format, const apr_backend& backend, const DeviceOptions& options,
                    Recorder& recorder);

}  // namespace apr::conformance
