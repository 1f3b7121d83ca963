#include <fmt/format.h>

#include "core/base/format.h"
#include "core/conformance/conformance.h"
#include "core/conformance/format_checks.h"
#include "core/plugin/check.h"

namespace apr::conformance {

std::string_view name(Verdict verdict) {
  switch (verdict) {
    case Verdict::Pass:
      return "pass";
    case Verdict::Fail:
      return "FAIL";
    case Verdict::NotRun:
      return "not run";
  }
  return "";
}

void check_format(const apr_quant_format& f, const FormatOptions& options, Listener& listener) {
  Recorder recorder(listener, f.name);
  const Verdict geometry = recorder.run("geometry", "", [&] {
    apr::check_format(f, "the library");
    return pass(fmt::format("{} in {} B, {:.2f} bpw", f.block_elements, f.block_bytes,
                            bits_per_weight(f.block_bytes, f.block_elements)));
  });
  if (geometry != Verdict::Pass) return;  // its functions may not be there
  check_rows(f, recorder);
  check_quantizer(f, recorder);
  check_error(f, recorder);
  check_kernels(f, recorder);
  check_codec(f, options.compiler, recorder);
}

}  // namespace apr::conformance
