#include "aprctl/engine.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "aprctl/engine_request.h"
#include "aprctl/gate.h"
#include "aprctl/installation.h"
#include "aprctl/model_options.h"
#include "aprctl/probe_report.h"
#include "core/base/error.h"
#include "core/base/format.h"
#include "core/base/log.h"
#include "core/hf/open_model.h"
#include "core/kernel_cache/kernel_cache.h"

namespace apr::ctl {
namespace {

// "loading weights 42%" on a terminal, rewritten in place; silent elsewhere.
ProgressFn terminal_progress() {
  if (!isatty(STDERR_FILENO) || log_level() > LogLevel::Info) return {};
  return [last = std::string()](const char* what, uint64_t done, uint64_t total) mutable {
    const std::string line = fmt::format("{} {}%", what, total == 0 ? 100 : 100 * done / total);
    if (line == last) return;
    last = line;
    fmt::print(stderr, "\r\033[K{}", done >= total ? "" : line);
    std::fflush(stderr);
  };
}

uint32_t context_of(const EngineRequest& request, const apr_plan& plan) {
  if (request.load.n_ctx == 0) return std::min(plan.n_ctx_train, kDefaultContext);
  if (request.cut_context) return std::min(plan.n_ctx_train, request.load.n_ctx);
  if (request.load.n_ctx > plan.n_ctx_train)
    log_warning("a context of {} is longer than the {} that the model was trained for", request.load.n_ctx,
                plan.n_ctx_train);
  return request.load.n_ctx;
}

// Once, and only where there is something to say: the profile that everyone gets has no rules.
void say_profile(const ProfileInForce& in_force, const std::vector<apr_kernel_info>& kernels) {
  if (in_force.rules->size() == 0) return;
  uint32_t by_rule = 0;
  for (const apr_kernel_info& kernel : kernels)
    if (kernel.rule != nullptr && kernel.rule[0] != '\0') ++by_rule;
  log_info("profile {}: {} of {} rules chose {} of {} kernels", in_force.profile.file,
           rules_used(kernels).size(), in_force.rules->size(), by_rule, kernels.size());
}

void say_warm_up(const Fp8WarmUp& warm_up) {
  if (warm_up.tensors == 0) return;
  log_info(
      "8-bit floats: {} tensors, {}, {}", warm_up.tensors, human_bytes(warm_up.bytes),
      warm_up.skipped ? std::string("not checked") : fmt::format("checked in {:.2f} s", warm_up.seconds));
}

}  // namespace

std::string kernel_cache_folder(const Probes& probes) {
  return probes.kernel_cache ? probes.kernel_cache->string() : user_cache_folder("kernels");
}

EngineRequest Engine::request(const CommandLine& line) {
  return engine_request(line, ModelOptions::path(line));
}

EngineRequest engine_request(const CommandLine& line, std::string model) {
  EngineRequest request;
  request.model = std::move(model);
  request.backend = line.get<std::string>("backend");
  request.device.index = line.get<uint32_t>("device");
  request.device.threads = line.get<uint32_t>("threads");
  request.load.n_ctx = line.get<uint32_t>("ctx");
  request.load.n_batch = line.get<uint32_t>("batch");
  request.load.precise = line.flag("precise");
  if (request.load.n_batch == 0) throw usage_error("--batch must be at least 1");
  return request;
}

Engine::Engine(const CommandLine& line, EngineRequest request)
    : probes_(probes_in_force()),
      request_(std::move(request)),
      model_(open_model(request_.model)),
      catalog_(std::make_unique<Catalog>(PluginOptions::search_paths(line, probes_))) {
  const apr_backend& backend = catalog_->backend(request_.backend);
  plan_ = build_plan(model_, *catalog_, plan_options(probes_));

  const auto own = std::move(request_.device.settings);
  request_.device.settings = backend_settings(probes_);
  request_.device.settings.insert(request_.device.settings.end(), own.begin(), own.end());
  // The cache's place and the templates' are the program's to know: a backend is told.
  std::erase_if(request_.device.settings,
                [](const auto& setting) { return setting.first == "kernel_cache"; });
  request_.device.settings.emplace_back("kernel_cache", kernel_cache_folder(probes_));
  request_.device.settings.emplace_back("data_dir", data_folder().string());
  device_ = std::make_unique<Device>(backend, request_.device);

  templates_ = kernel_templates(backend, request_.device.settings);
  Profile profile =
      request_.profile
          ? *request_.profile
          : read_profile(find_profile(ProfileOptions::name(line, probes_), ProfileOptions::folders()));
  if (profile.precise) request_.load.precise = true;
  profile_ = put_in_force(std::move(profile), probes_.force_kernel, request_.backend, templates_,
                          make_stamp(device_->info(), templates_, plan()));
  request_.load.rules = profile_.rules->c();
  request_.load.n_rules = profile_.rules->size();

  request_.load.n_ctx = context_of(request_, plan());
  // Of a small vocabulary all logits are little more than the candidates.
  if (request_.load.n_top >= plan().n_vocab) request_.load.n_top = 0;
  if (!request_.load.progress) request_.load.progress = terminal_progress();
  fp8_warm_up_ = warm_up_fp8(plan(), probes_.skip_fp8_warmup, request_.load.progress);
  say_warm_up(fp8_warm_up_);
  session_ = std::make_unique<Session>(*device_, plan(), request_.load);
  check_forced(profile_, session_->kernels());
  say_profile(profile_, session_->kernels());
  gate_verdict_ = gate_before_use(*this);
  if (!probes_.stage_dump) return;
  if (!request_.dump) {
    log_warning(
        "APR_STAGE_DUMP: this command watches stages itself and writes no dump; `aprctl run` and "
        "`aprctl logits` write one");
    return;
  }
  // Not its path: two dumps are of one model when their hashes agree, wherever the file lay.
  session_->dump_stages(std::make_unique<StageDump>(*probes_.stage_dump, request_.backend, model_.sha256()));
}

std::string Engine::resolved() const {
  const apr_device_info info = device_->info();
  return fmt::format("asked: {}; resolved: {}, {} ({}), {} units; parity gate: {}", request_.backend,
                     device_->backend().name, info.name, info.arch, info.units, gate_verdict_);
}

nlohmann::ordered_json Engine::report() const {
  const apr_device_info device = device_->info();
  const apr_session_info session = session_->info();
  const nlohmann::ordered_json profile = {{"name", profile_.profile.name},
                                          {"file", profile_.profile.file},
                                          {"rules", profile_.rules->size()},
                                          {"rules_used", rules_used(session_->kernels())},
                                          {"not_used_because", profile_.stamp_differences}};
  return {{"model_filename", request_.model},
          {"model_type", model_.meta.find_string("general.name").value_or(plan().arch)},
          {"model_size", model_.weight_bytes()},
          {"model_n_params", model_.parameters()},
          {"backends", device_->backend().name},
          {"backend_asked", request_.backend},
          {"device", device.name},
          {"device_detail", device.detail},
          {"arch", device.arch},
          {"n_threads", request_.device.threads == 0 ? device.units : request_.device.threads},
          {"n_ctx", request_.load.n_ctx},
          {"n_batch", request_.load.n_batch},
          {"precise", request_.load.precise},
          {"profile", profile},
          {"parity_gate", gate_verdict_},
          {"probes", probes_json(probes_)},
          {"weight_bytes", session.weight_bytes},
          {"kv_bytes", session.kv_bytes},
          {"scratch_bytes", session.scratch_bytes},
          {"fp8_warm_up",
           {{"tensors", fp8_warm_up_.tensors},
            {"bytes", fp8_warm_up_.bytes},
            {"skipped", fp8_warm_up_.skipped},
            {"seconds", fp8_warm_up_.seconds}}},
          {"load_seconds", session.load_seconds},
          {"compile_seconds", session.compile_seconds},
          {"upload_seconds", session.upload_seconds},
          {"kernels_compiled", session.kernels_compiled},
          {"kernels_cached", session.kernels_cached},
          {"dispatches_after_load", session.dispatches_after_load},
          {"compiles_after_load", session.compiles_after_load}};
}

}  // namespace apr::ctl
