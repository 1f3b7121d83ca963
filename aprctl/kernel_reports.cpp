#include <algorithm>
#include <cstddef>
#include <map>

#include "aprctl/kernels.h"
#include "core/base/error.h"
#include "core/tune/measure.h"

namespace apr::ctl {

namespace {

// Backends that were built before a member existed leave it null.
std::string text(const char* t) { return t == nullptr ? "" : t; }

KernelReport report_of(const apr_kernel_info& k) {
  return {text(k.stage),
          text(k.weight),
          text(k.format),
          text(k.layout),
          text(k.kernel),
          text(k.config),
          text(k.reason),
          text(k.op),
          text(k.spec),
          text(k.rule),
          text(k.rejected),
          k.bytes,
          k.n,
          k.k,
          k.m_min,
          k.m_max,
          k.launch,
          k.microseconds};
}

// A product's time in a chain of launches of itself, its weights read from memory each time: between two events it would
// carry what a launch costs, as much as a small product.
void time_products(const Session& session, std::vector<KernelReport>& reports) {
  constexpr uint32_t kRepetitions = 5;
  const apr_backend& backend = session.backend();
  if (!can_measure(backend)) return;
  // Microseconds for a byte of a launch, by what it computes and with which parameters; 0: it cannot be run alone.
  std::map<std::pair<std::string, std::string>, double> per_byte;
  for (uint32_t i = 0; i < reports.size(); ++i) {
    KernelReport& k = reports[i];
    if (k.op != "linear" || k.bytes == 0) continue;
    const auto [at, fresh] = per_byte.emplace(std::pair(k.spec, k.config), 0);
    if (fresh) {
      const apr_measurement own =
          measure_candidates(backend, session.handle(), i, k.spec, kRepetitions, {nullptr})[0];
      if (own.status == APR_OK && own.bytes > 0)
        at->second = own.microseconds / static_cast<double>(own.bytes);
    }
    if (at->second > 0) k.microseconds = at->second * static_cast<double>(k.bytes);
  }
}

}  // namespace

std::vector<KernelReport> kernel_reports(const Session& session) {
  std::vector<KernelReport> reports;
  for (const apr_kernel_info& k : session.kernels()) reports.push_back(report_of(k));
  return reports;
}

std::vector<KernelReport> timed_kernels(Engine& engine) {
  // Enough for a median that a single late step does not move; the first two bring caches and clocks up.
  constexpr int kSteps = 24, kWarm = 2, kPrompts = 3;
  Session& session = engine.session();
  std::vector<std::vector<double>> times(session.kernels().size());
  const auto note = [&](bool many) {
    const std::vector<apr_kernel_info> kernels = session.kernels();
    for (size_t i = 0; i < kernels.size(); ++i)
      if ((kernels[i].m_min > 1) == many && kernels[i].microseconds > 0)
        times[i].push_back(kernels[i].microseconds);
  };
  const uint32_t room = session.context();
  if (room < 2) throw Error("measuring kernels needs a context of at least 2 positions, not {}", room);
  int32_t position = 0;
  for (int i = 0; i < kSteps + kWarm; ++i) {
    const int32_t token = static_cast<int32_t>(static_cast<uint32_t>(i * 7919) % session.vocab());
    session.feed_argmax({&token, 1}, position);
    if (i >= kWarm) note(false);
    position = (position + 1) % static_cast<int32_t>(room);
  }
  std::vector<int32_t> prompt(std::min(session.batch(), room));
  for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<int32_t>((i * 7919) % session.vocab());
  for (int i = 0; i < kPrompts; ++i) {
    session.feed_argmax(prompt, 0);
    if (i > 0) note(true);
  }
  std::vector<KernelReport> reports = kernel_reports(session);
  for (size_t i = 0; i < reports.size(); ++i) {
    std::vector<double>& t = times[i];
    std::sort(t.begin(), t.end());
    reports[i].microseconds = t.empty() ? 0 : t[t.size() / 2];
  }
  time_products(session, reports);
  return reports;
}

CodeReport kernel_code(const Session& session, uint32_t index) {
  const apr_backend& backend = session.backend();
  if (backend.struct_size < offsetof(apr_backend, code) + sizeof backend.code || backend.code == nullptr)
    throw Error("backend {} does not show the code of its kernels", backend.name);
  apr_kernel_code code{};
  code.struct_size = sizeof code;
  code.registers = code.shared_bytes = code.spill_bytes = code.threads = code.ctas = -1;
  apr_error error{};
  error.struct_size = sizeof error;
  if (backend.code(session.handle(), index, &code, &error) != APR_OK)
    throw Error("backend {}: {}", backend.name, error.message);
  return {text(code.function), text(code.isa), text(code.source), text(code.assembly),
          text(code.compiler), text(code.key), code.registers,    code.shared_bytes,
          code.spill_bytes,    code.threads,   code.ctas};
}

}  // namespace apr::ctl
