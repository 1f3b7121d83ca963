// The architectures that plans can be built for. A new one is a file with one function and a row in
// architecture.cpp.
#pragma once

#include <memory>
#include <span>
#include <string_view>

#include "core/plan/builder.h"
#include "core/plan/hyper.h"

namespace apr {

struct Architecture {
  std::string_view name;  // general.architecture
  std::unique_ptr<Plan> (*build)(PlanBuilder& builder, const HyperParameters& hyper);
};

std::span<const Architecture> architectures();

std::unique_ptr<Plan> build_llama(PlanBuilder& builder, const HyperParameters& hyper);
std::unique_ptr<Plan> build_mistral3(PlanBuilder& builder, const HyperParameters& hyper);
std::unique_ptr<Plan> build_qwen2(PlanBuilder& builder, const HyperParameters& hyper);
std::unique_ptr<Plan> build_qwen3(PlanBuilder& builder, const HyperParameters& hyper);

}  // namespace apr
