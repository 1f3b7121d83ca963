// From a file's name to a session that can step: the walk model -> catalog -> plan -> device -> session, with its
// progress shown on a terminal.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "aprctl/command_line.h"
#include "core/model/model.h"
#include "core/plan/plan.h"
#include "core/plugin/catalog.h"
#include "core/probe/probe.h"
#include "core/runtime/session.h"

namespace apr::ctl {

struct EngineRequest {
  std::string model;
  std::string backend;
  DeviceRequest device;
  LoadRequest load;  // n_ctx 0: the model's own context, at most kDefaultContext
  bool gate = true;  // a device backend is compared with the CPU reference before its first answer
};

inline constexpr uint32_t kDefaultContext = 4096;

class Engine {
 public:
  // What the command line and the environment ask for.
  static EngineRequest request(const CommandLine& line);

  explicit Engine(const CommandLine& line) : Engine(line, request(line)) {}
  Engine(const CommandLine& line, EngineRequest request);

  const EngineRequest& asked() const { return request_; }
  const Model& model() const { return model_; }
  const apr_plan& plan() const { return plan_->c(); }
  const Device& device() const { return *device_; }
  Session& session() { return *session_; }
  double open_seconds() const { return open_seconds_; }  // file and plan, before the backend's load

  // "asked: cuda; resolved: cuda, NVIDIA H200": for people, on stderr.
  std::string resolved() const;
  // model, backend, device, memory and probes in force: the common head of every JSON report.
  nlohmann::ordered_json report() const;

 private:
  EngineRequest request_;
  Model model_;
  std::unique_ptr<Catalog> catalog_;
  std::unique_ptr<Plan> plan_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Session> session_;
  double open_seconds_ = 0;
};

}  // namespace apr::ctl
