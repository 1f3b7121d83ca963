// A format on a backend's device, through the waist alone: a plan of two operations, rows of a packed
// embedding times a packed matrix.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/conformance/conformance.h"
#include "core/conformance/format_checks.h"
#include "core/conformance/product_plan.h"
#include "core/runtime/session.h"

namespace apr::conformance {
namespace {

constexpr uint64_t kGemvRows[] = {1, 2, 3, 4, 5, 6, 7, 8};
constexpr uint64_t kGemmRows[] = {17, 64, 130};

// Rounding of an activation to 8 bits is amax / 127 / sqrt(12) of a block, 4.7e-5 of its squares; a margin of
// 4 on it. A float product rounds weights or activations to 16-bit terms at worst.
constexpr double kIntBound = 4 * 4.7e-5, kFloatBound = 1e-6;

class DeviceCheck {
 public:
  DeviceCheck(const apr_quant_format& f, const Device& device, Recorder recorder)
      : f_(f), device_(device), recorder_(std::move(recorder)) {}

  // The layouts that the device used.
  std::set<std::string> run(bool precise) {
    const Product product = device_product(f_);
    const Plan plan(f_, product);
    std::unique_ptr<Session> session;
    std::set<std::string> layouts;
    if (recorder_.run("load", "", [&] {
          session = std::make_unique<Session>(device_, plan.c(), device_request(precise));
          std::set<std::string> kernels;
          for (const apr_kernel_info& kernel : session->kernels())
            if (*kernel.weight) layouts.insert(kernel.layout), kernels.insert(kernel.kernel);
          return Finding{Verdict::Pass, joined(layouts), "kernels: " + joined(kernels)};
        }) != Verdict::Pass)
      return layouts;
    // Each row of the table, through the device: decode = dequantize, on it.
    recorder_.run("rows of the table", "same bits", [&] { return rows(*session, product); });
    const double bound = precise || f_.int_group == 0 ? kFloatBound : kIntBound;
    recorder_.run("NMSE: M = 1 to 8", fmt::format("{:.1e}", bound),
                  [&] { return products(*session, product, kGemvRows, bound); });
    recorder_.run("NMSE: M = 17 to 130", fmt::format("{:.1e}", bound),
                  [&] { return products(*session, product, kGemmRows, bound); });
    return layouts;
  }

 private:
  static std::vector<int32_t> tokens(const Product& p, uint64_t m, uint64_t from) {
    std::vector<int32_t> ids;
    for (uint64_t i = 0; i < m; ++i) ids.push_back(static_cast<int32_t>((from + 37 * i) % p.n));
    return ids;
  }

  static Finding rows(Session& session, const Product& p) {
    const std::vector<int32_t> ids = tokens(p, p.n, 0);
    std::vector<float> got;
    session.tap([&](const char* stage, const float* data, uint32_t rows, uint32_t width) {
      if (std::string_view(stage) == "embed") got.insert(got.end(), data, data + uint64_t{rows} * width);
    });
    session.feed_all(ids, 0);
    session.tap({});
    if (got.size() != p.n * p.k)
      return fail("not reported",
                  fmt::format("stage embed gave {} numbers instead of {}", got.size(), p.n * p.k));
    for (uint64_t i = 0; i < p.n; ++i)
      for (uint64_t j = 0; j < p.k; ++j) {
        const float wanted = p.x[static_cast<uint64_t>(ids[i]) * p.k + j], is = got[i * p.k + j];
        if (!same(is, wanted))
          return fail(fmt::format("column {}", j),
                      fmt::format("row {} column {} is {} (bits {:08x}), dequantize gives {} ({:08x})",
                                  ids[i], j, is, float_to_bits(is), wanted, float_to_bits(wanted)));
      }
    return pass(fmt::format("{} rows of {}", p.n, p.k));
  }

  static Finding products(Session& session, const Product& p, std::span<const uint64_t> rows, double bound) {
    double worst = 0;
    uint64_t worst_m = 0;
    for (const uint64_t m : rows) {
      const std::vector<int32_t> ids = tokens(p, m, 5 * m);
      const std::vector<float> y = session.feed_all(ids, 0);
      double error = 0, size = 0;
      for (uint64_t i = 0; i < m; ++i)
        for (uint64_t n = 0; n < p.n; ++n) {
          const double wanted = p.exact(static_cast<uint64_t>(ids[i]), n),
                       miss = double{y[i * p.n + n]} - wanted;
          error += miss * miss, size += wanted * wanted;
        }
      const double nmse = error / size;
      if (!(nmse <= worst)) worst = nmse, worst_m = m;  // NaN too
      if (std::isnan(nmse)) break;
    }
    const std::string value = fmt::format("{:.1e} at M={}", worst, worst_m);
    if (worst <= bound) return pass(value);
    return fail(value,
                "the device's products of these weights are not those of dequantize: is a layout's decode "
                "right on it?");
  }

  const apr_quant_format& f_;
  const Device& device_;
  Recorder recorder_;
};

}  // namespace

void check_on_device(const apr_quant_format& f, const apr_backend& backend, const DeviceOptions& options,
                     Listener& listener) {
  Recorder recorder(listener, fmt::format("{} on {}", f.name, backend.name));
  std::unique_ptr<Device> device;
  recorder.run(kDeviceCheck, "", [&] {
    uint32_t count = 0;
    Message message;
    if (backend.devices(&count, &message) != APR_OK || count == 0)
      return not_run(message.text().empty() ? "the backend has no device here" : message.text());
    device = std::make_unique<Device>(backend, DeviceRequest{options.index, 0, options.settings});
    const apr_device_info info = device->info();
    return Finding{Verdict::Pass, info.arch, info.name};
  });
  if (!device) {
    check_compiles(f, backend, options, recorder);
    return;
  }
  const auto run = [&](const apr_quant_format& format, const std::string& how, bool precise) {
    return DeviceCheck(format, *device, Recorder(listener, recorder.group() + how)).run(precise);
  };
  const std::set<std::string> layouts = run(f, "", false);
  run(f, ", precise", true);
  if (f.codec && (layouts.size() > 1 || !layouts.count("row_major"))) {
    const RowMajorOnly only(f);
    run(only.format, ", row_major", false);
    run(only.format, ", row_major, precise", true);
  }
}

}  // namespace apr::conformance
