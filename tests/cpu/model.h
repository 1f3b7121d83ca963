// A model from a file, loaded on the backend of the build tree through the program's own code.
#pragma once

#include <memory>
#include <string>

#include "core/plan/plan.h"
#include "core/runtime/session.h"

namespace apr::test {

struct LoadedModel {
  std::unique_ptr<Plan> plan;
  std::unique_ptr<Device> device;
  std::unique_ptr<Session> session;
};

// isa "": the processor's highest. threads 0: physical cores.
LoadedModel load_model(const std::string& path, const std::string& isa, uint32_t threads,
                       const LoadRequest& request);

}  // namespace apr::test
