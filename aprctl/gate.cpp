#include "aprctl/gate.h"

#include <fmt/format.h>

#include <algorithm>

#include "aprctl/installation.h"
#include "aprctl/sides.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/gate/stage_check.h"
#include "core/kernel_cache/kernel_cache.h"
#include "core/text/tokenizer.h"

namespace apr::ctl {
namespace {

// Long enough for KV history, rope and several GEMM tiles' edges; short enough for a CPU to compute while a person waits.
constexpr size_t kPromptTokens = 24;
constexpr const char* kPrompt =
    "The keeper climbed the stairs at dusk, trimmed the wick, and wrote in the log: wind north-west, 14 "
    "knots; "
    "two ships passed, one of them Danish. Why had the third not come?";
constexpr uint32_t kGateColumns = 128;  // rows of each matrix whose products are judged

ParityIdentity identity(Engine& engine) {
  ParityIdentity id;
  for (const auto& part : engine.model().files) id.model += cheap_file_identity(part->path()) + ";";
  id.program = file_hash(executable_path().string());
  for (const FoundPlugin& plugin : engine.catalog().plugins())
    if (plugin.table != nullptr) id.plugins.push_back(file_hash(plugin.manifest.library.string()));
  id.kernels = kernels_hash(engine.device().backend(), engine.session().handle());
  const apr_device_info device = engine.device().info();
  id.device = fmt::format("{}; {}; {}", device.name, device.arch, device.detail);
  id.options = fmt::format("precise={}", engine.asked().load.precise ? 1 : 0);
  for (const auto& [name, value] : engine.probes().in_force) id.options += fmt::format(" {}={}", name, value);
  return id;
}

}  // namespace

std::vector<int32_t> gate_tokens(const Engine& engine) {
  const auto tokenizer = make_tokenizer(engine.model().meta);
  std::vector<int32_t> ids = tokenizer->encode(kPrompt);
  ids.resize(std::min({ids.size(), kPromptTokens, static_cast<size_t>(engine.asked().load.n_ctx),
                       static_cast<size_t>(engine.asked().load.n_batch)}));
  return ids;
}

ParityReport compare_with_reference(Engine& engine) {
  const std::vector<int32_t> tokens = gate_tokens(engine);
  // Settings are the device's own; the reference is judged by nothing but its defaults.
  Side reference(engine.catalog(), engine.plan(), parse_sides(engine.asked().backend).first, DeviceRequest{},
                 static_cast<uint32_t>(tokens.size()));
  return compare_sides(engine, reference, tokens);
}

ParityReport compare_sides(Engine& engine, Side& reference, const std::vector<int32_t>& tokens) {
  ParityRequest request;
  request.reference = reference.gate_side();
  request.device = {&engine.device().backend(), engine.session().handle()};
  request.plan = &engine.plan();
  request.tokens = tokens;
  request.reference_precise = reference.spec().precise;
  request.device_precise = engine.asked().load.precise;
  ParityReport report = run_parity(request);
  // Logits tell whether users would see a fault; stages tell of one that this prompt happens to hide, and where it is.
  StageCheckOptions options;
  options.precise = engine.asked().load.precise;
  options.columns = kGateColumns;
  options.selected = representative_stages(engine.plan());
  try {
    for (const ParityForm form : {ParityForm::Prefill, ParityForm::Mixed})
      judge_stages(report, check_stages(request.device, engine.plan(), tokens, form, options));
  } catch (const Error& e) {
    // What stops a device in the middle of a step is in the report already.
    if (report.verdict == ParityVerdict::Pass) throw;
  }
  return report;
}

std::string gate_before_use(Engine& engine) {
  if (engine.device().backend().name == std::string_view(kReferenceBackend)) return "not needed (reference)";
  if (!engine.asked().gate) return "not run (this command compares by itself)";
  if (engine.probes().skip_parity_gate) {
    log_warning("APR_SKIP_PARITY_GATE: nothing has shown that {} computes this model correctly here",
                engine.asked().backend);
    return "skipped (APR_SKIP_PARITY_GATE)";
  }
  const std::string folder = user_cache_folder("receipts");
  const ParityIdentity id = identity(engine);
  if (!folder.empty() && find_receipt(folder, id)) return "pass (receipt)";
  log_info("parity gate: comparing {} with the {} reference, once for this model, program and device",
           engine.asked().backend, kReferenceBackend);
  const ParityReport report = compare_with_reference(engine);
  switch (report.verdict) {
    case ParityVerdict::Pass:
      if (!folder.empty()) write_receipt(folder, id, report);
      return "pass";
    case ParityVerdict::Fail:
      throw Error(fmt::format("the parity gate failed: no text is generated from wrong "
                              "numbers.\n{}\nAPR_SKIP_PARITY_GATE=1 runs "
                              "anyway; `aprctl parity` shows more",
                              describe(report)),
                  ErrorKind::Gate);
    case ParityVerdict::NotRun:
      log_warning("the parity gate could not run: {}", report.reason);
      return "not run: " + report.reason;
  }
  return "not run";
}

}  // namespace apr::ctl
