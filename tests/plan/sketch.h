// A small model in memory, made key by key and tensor by tensor, so that a test can leave one out or bend it.
#pragma once

#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/model/model.h"
#include "core/plan/plan.h"
#include "core/plugin/catalog.h"

namespace apr::test {

// The plugins of this build: ../../plugins from the test's executable.
Catalog& build_tree_catalog();

class Sketch {
 public:
  // A whole f32 model: 2 layers, 64 columns, 4 heads of 16, 2 KV heads, 96 columns of feed-forward,
  // vocabulary 32.
  explicit Sketch(const std::string& arch);

  // Metadata under "<arch>.".
  void set(const std::string& key, MetaValue value) { model.meta.set(arch + "." + key, std::move(value)); }
  void erase(const std::string& key) { model.meta.erase(arch + "." + key); }
  // Floats; dims as in GGUF, fastest first. Replaces a tensor of the same name.
  void tensor(const std::string& name, std::vector<uint64_t> dims, std::vector<float> data);
  void tensor(const std::string& name, std::vector<uint64_t> dims);  // deterministic noise
  void remove(const std::string& name);
  Tensor& at(const std::string& name);

  std::unique_ptr<Plan> plan(const PlanOptions& options = {}) const;
  // The message of building the plan; "" when it works.
  std::string error(const PlanOptions& options = {}) const;

  std::string arch;
  Model model;

 private:
  std::deque<std::vector<float>> data_;
};

// The operation of a stage; fails the test when there is none.
const apr_op& op_of(const Plan& plan, const std::string& stage);
bool has_stage(const Plan& plan, const std::string& stage);
inline bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace apr::test
