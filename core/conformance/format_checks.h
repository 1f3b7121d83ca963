// The parts of check_format, one file each.
#pragma once

#include <string>

#include "apr/quant.h"
#include "core/conformance/report.h"

namespace apr::conformance {

void check_rows(const apr_quant_format& format, Recorder& recorder);  // dequantize, validate
void check_quantizer(const apr_quant_format& format,
                     Recorder& recorder);  // quantize: what it takes, refuses, touches
void check_error(const apr_quant_format& format, Recorder& recorder);  // quantize: how well
void check_kernels(const apr_quant_format& format,
                   Recorder& recorder);  // of every instruction set that runs here
void check_codec(const apr_quant_format& format, const std::string& compiler, Recorder& recorder);

}  // namespace apr::conformance
