// Kernels of a backend that has no device here, compiled with a format's codec: what a compiler says of it is known before
// the first device sees it.
#include <fmt/format.h>

#include <cstring>
#include <set>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/conformance/conformance.h"
#include "core/conformance/format_checks.h"
#include "core/conformance/product_plan.h"
#include "core/runtime/session.h"

namespace apr::conformance {
namespace {

// The architectures that a backend's kernels are made for: "sm_80".
std::set<std::string> architectures(const apr_backend& backend, const DeviceOptions& options) {
  if (backend.templates == nullptr || backend.code == nullptr) return {};
  std::vector<apr_setting> settings;
  for (const auto& [key, value] : options.settings) settings.push_back({key.c_str(), value.c_str()});
  std::set<std::string> found;
  Message message;
  backend.templates(
      settings.data(), static_cast<uint32_t>(settings.size()),
      [](void* user, const apr_kernel_template* kernel) {
        if (*kernel->arch) static_cast<std::set<std::string>*>(user)->insert(kernel->arch);
      },
      &found, &message);
  return found;
}

// Of a compiler's report, what is not a mere warning: paragraphs that have an error, else all of it.
std::string errors_of(const std::string& report) {
  std::string errors;
  for (size_t from = 0; from < report.size();) {
    const size_t end = std::min(report.find("\n\n", from), report.size());
    const std::string paragraph = report.substr(from, end - from);
    if (paragraph.find("error") != std::string::npos) errors += (errors.empty() ? "" : "\n") + paragraph;
    from = end + 2;
  }
  return errors.empty() ? report : errors;
}

// What compiling the kernels of a session came to; each kernel once.
struct Compiled {
  std::set<std::string> kernels, layouts;
  std::string nothing_because;  // the backend has no compiler
};

void compile_all(const Device& device, const apr_quant_format& f, bool precise, Compiled& compiled) {
  const Product product = device_product(f);
  const Plan plan(f, product);
  const Session session(device, plan.c(), device_request(precise));
  const std::vector<apr_kernel_info> kernels = session.kernels();
  for (uint32_t i = 0; i < kernels.size(); ++i) {
    const apr_kernel_info& kernel = kernels[i];
    if (!*kernel.weight ||
        !compiled.kernels.insert(fmt::format("{} {}", kernel.kernel, kernel.layout)).second)
      continue;
    compiled.layouts.insert(kernel.layout);
    apr_kernel_code code{};
    code.struct_size = sizeof code;
    Message message;
    if (device.backend().code(session.handle(), i, &code, &message) != APR_OK)
      throw Error("{} of layout {}: {}", kernel.kernel, kernel.layout, errors_of(message.text()));
    if (!*code.assembly) compiled.nothing_because = code.compiler;
  }
}

}  // namespace

void check_compiles(const apr_quant_format& f, const apr_backend& backend, const DeviceOptions& options,
                    Recorder& recorder) {
  if (f.codec == nullptr) return;
  for (const std::string& arch : architectures(backend, options)) {
    DeviceRequest request{0, 0, options.settings};
    request.settings.emplace_back("arch", arch);
    std::unique_ptr<Device> device;
    try {
      device = std::make_unique<Device>(backend, request);
    } catch (const Error&) {
      continue;  // a backend that knows no such setting wants its device, which it has said it lacks
    }
    recorder.run("compiles for " + arch, "no error", [&] {
      Compiled compiled;
      compile_all(*device, f, false, compiled);
      if (!compiled.nothing_because.empty()) return not_run(compiled.nothing_because);
      if (f.int_group != 0) compile_all(*device, f, true, compiled);
      if (compiled.layouts.size() > 1 || !compiled.layouts.count("row_major"))
        compile_all(*device, RowMajorOnly(f).format, false, compiled);
      return Finding{Verdict::Pass, fmt::format("{} kernels", compiled.kernels.size()),
                     joined(compiled.kernels)};
    });
  }
}

}  // namespace apr::conformance
