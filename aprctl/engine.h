// From a file's name to a session that can step: the walk model -> catalog -> plan -> device -> session, with its
// progress shown on a terminal, and the parity gate before a device's first answer.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "aprctl/command_line.h"
#include "core/model/model.h"
#include "core/plan/plan.h"
#include "core/plugin/catalog.h"
#include "core/probe/probe.h"
#include "core/profile/select.h"
#include "core/runtime/fp8_warm_up.h"
#include "core/runtime/session.h"

namespace apr::ctl {

inline constexpr uint32_t kDefaultContext = 4096;
// What other backends are compared with.
inline constexpr const char* kReferenceBackend = "cpu";

struct EngineRequest {
  std::string model;
  std::string backend;
  DeviceRequest device;
  LoadRequest load;  // n_ctx 0: the model's own context, at most kDefaultContext; rules come from the profile
  std::optional<Profile> profile;  // instead of the one that the command line and the environment name
  bool cut_context = false;        // n_ctx is an upper bound: a model of less gets its own
  bool dump = true;                // obey APR_STAGE_DUMP; false for commands that tap the session
  bool gate = true;  // compare a backend other than the reference with it before its first answer
};

class Engine {
 public:
  // What the command line and the environment ask for.
  static EngineRequest request(const CommandLine& line);

  explicit Engine(const CommandLine& line) : Engine(line, request(line)) {}
  // Throws apr::Error; of kind Gate when the parity gate fails.
  Engine(const CommandLine& line, EngineRequest request);

  const EngineRequest& asked() const { return request_; }
  const Probes& probes() const { return probes_; }
  const Model& model() const { return model_; }
  Catalog& catalog() { return *catalog_; }
  const apr_plan& plan() const { return plan_->c(); }
  Device& device() { return *device_; }
  const Device& device() const { return *device_; }
  Session& session() { return *session_; }
  // "pass", "pass (receipt)", "skipped", "not needed": what the parity gate said.
  const ProfileInForce& profile() const { return profile_; }
  // Kernels that the backend can choose from; empty when it cannot tell.
  const std::vector<KernelTemplate>& templates() const { return templates_; }

  // "asked: cuda; resolved: cuda, NVIDIA H200 (sm_90a)": for people, on stderr.
  std::string resolved() const;
  // model, backend, device, memory and probes in force: the common head of every JSON report.
  nlohmann::ordered_json report() const;

 private:
  Probes probes_;
  EngineRequest request_;
  Model model_;
  std::unique_ptr<Catalog> catalog_;
  std::unique_ptr<Plan> plan_;
  std::unique_ptr<Device> device_;
  std::vector<KernelTemplate> templates_;
  ProfileInForce profile_;
  Fp8WarmUp fp8_warm_up_;
  std::unique_ptr<Session> session_;
  std::string gate_verdict_;
};

// Where compiled kernels are kept: APR_KERNEL_CACHE, else the user's cache folder; "" when there is neither.
std::string kernel_cache_folder(const Probes& probes);

}  // namespace apr::ctl
