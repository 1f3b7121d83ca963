#include "tests/plan/sketch.h"

#include <algorithm>
#include <boost/dll/runtime_symbol_info.hpp>
#include <stdexcept>

#include "core/base/log.h"

namespace apr::test {

Catalog& build_tree_catalog() {
  static Catalog catalog(
      {{(boost::dll::program_location().parent_path() / "../../plugins").lexically_normal(), "the build tree",
        true}});
  return catalog;
}

Sketch::Sketch(const std::string& name) : arch(name), model{Metadata("sketch.gguf"), {}, {}} {
  set_log_level(LogLevel::Error);
  model.meta.add("general.architecture", arch);
  set("block_count", uint64_t{2});
  set("context_length", uint64_t{128});
  set("embedding_length", uint64_t{64});
  set("feed_forward_length", uint64_t{96});
  set("attention.head_count", uint64_t{4});
  set("attention.head_count_kv", uint64_t{2});
  set("attention.layer_norm_rms_epsilon", 1e-5);
  tensor("token_embd.weight", {64, 32});
  tensor("output.weight", {64, 32});
  tensor("output_norm.weight", {64});
  for (const char* layer : {"blk.0.", "blk.1."}) {
    const std::string b = layer;
    tensor(b + "attn_norm.weight", {64});
    tensor(b + "attn_q.weight", {64, 64});
    tensor(b + "attn_k.weight", {64, 32});
    tensor(b + "attn_v.weight", {64, 32});
    tensor(b + "attn_output.weight", {64, 64});
    tensor(b + "ffn_norm.weight", {64});
    tensor(b + "ffn_gate.weight", {64, 96});
    tensor(b + "ffn_up.weight", {64, 96});
    tensor(b + "ffn_down.weight", {96, 64});
    if (arch == "qwen2") {
      tensor(b + "attn_q.bias", {64});
      tensor(b + "attn_k.bias", {32});
      tensor(b + "attn_v.bias", {32});
    }
    if (arch == "qwen3") {
      tensor(b + "attn_q_norm.weight", {16});
      tensor(b + "attn_k_norm.weight", {16});
    }
  }
}

void Sketch::tensor(const std::string& name, std::vector<uint64_t> dims, std::vector<float> values) {
  remove(name);
  const std::vector<float>& kept = data_.emplace_back(std::move(values));
  model.tensors.push_back({name, WeightQuantType::F32, "f32", std::move(dims),
                           reinterpret_cast<const std::byte*>(kept.data()), kept.size() * sizeof(float), 0});
}

void Sketch::tensor(const std::string& name, std::vector<uint64_t> dims) {
  uint64_t count = 1;
  for (uint64_t size : dims) count *= size;
  std::vector<float> values(count);
  uint32_t state = static_cast<uint32_t>(std::hash<std::string>{}(name)) | 1;
  for (float& value : values) {
    state = state * 1664525 + 1013904223;  // Numerical Recipes' generator: any noise will do
    value = (static_cast<float>(state >> 8) / static_cast<float>(1 << 24) - 0.5f) * 0.25f;
  }
  tensor(name, std::move(dims), std::move(values));
}

void Sketch::remove(const std::string& name) {
  std::erase_if(model.tensors, [&](const Tensor& tensor) { return tensor.name == name; });
}

Tensor& Sketch::at(const std::string& name) {
  for (Tensor& tensor : model.tensors) {
    if (tensor.name == name) return tensor;
  }
  throw std::logic_error("the sketch has no tensor " + name);
}

std::unique_ptr<Plan> Sketch::plan(const PlanOptions& options) const {
  return build_plan(model, build_tree_catalog(), options);
}

std::string Sketch::error(const PlanOptions& options) const {
  try {
    plan(options);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

bool has_stage(const Plan& plan, const std::string& stage) {
  for (uint32_t i = 0; i < plan.c().n_ops; ++i) {
    if (plan.c().ops[i]->stage == stage) return true;
  }
  return false;
}

const apr_op& op_of(const Plan& plan, const std::string& stage) {
  for (uint32_t i = 0; i < plan.c().n_ops; ++i) {
    if (plan.c().ops[i]->stage == stage) return *plan.c().ops[i];
  }
  throw std::logic_error("the plan has no stage " + stage);
}

}  // namespace apr::test
