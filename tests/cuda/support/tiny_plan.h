// Small decoder models with random weights, as plans, and their float64 evaluation: what a backend must compute.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "apr/backend.h"

namespace apr::test {

struct TinyShape {
  uint32_t n_layers = 2, n_vocab = 300, n_embd = 256, n_ff = 512, n_heads = 4, n_kv_heads = 2, head_dim = 64;
  uint32_t rope_dims = 64;  // of head_dim
  uint32_t window = 0;
  apr_rope_kind rope = APR_ROPE_ADJACENT;
  bool bias = false, qk_norm = false, tied = false;
  std::string format = "f32", v_format = "";  // v_format: of attn_v and ffn_down, "" = format
  uint32_t seed = 1;
};

// Owns everything that the plan points to.
class TinyPlan {
 public:
  explicit TinyPlan(const TinyShape& shape);
  TinyPlan(const TinyPlan&) = delete;
  TinyPlan& operator=(const TinyPlan&) = delete;
  ~TinyPlan();

  const apr_plan& plan() const;
  // The structs behind the plan, for tests that break it: pointers stay valid as long as this lives.
  apr_op& op(uint32_t index);
  apr_op& op(const std::string& stage);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Evaluates a plan operation by operation in float64 over dequantised weights; the KV cache is rounded to f16 as every
// backend's is. One object is one session.
class Reference {
 public:
  explicit Reference(const apr_plan& plan);
  ~Reference();
  // Logits of every token of the batch: [n][n_vocab].
  std::vector<double> step(const std::vector<int32_t>& tokens, const std::vector<int32_t>& positions,
                           const std::vector<int32_t>& sequences);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// sum (a - b)^2 / sum b^2
double nmse(const float* a, const double* b, size_t n);

}  // namespace apr::test
