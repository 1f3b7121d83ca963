// Puts a plan together: binds tensors, checks shapes, appends operations. An architecture describes its
// computation through these calls and touches no C struct.
//
// Values, weights and vectors are known by their index in the plan; kNone stands for "there is none".
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/model/model.h"
#include "core/plan/plan.h"
#include "core/plugin/catalog.h"

namespace apr {

inline constexpr int32_t kNone = -1;

// A stage's place: "blk.<layer>.<name>", or just the name when layer is kNone.
struct Stage {
  int32_t layer;
  std::string_view name;
};

struct HeadShape {
  uint32_t n_heads;
  uint32_t head_dim;
};

struct RopeShape {
  apr_rope_kind kind;
  uint32_t dims;
  int32_t inverse_frequencies;  // vector
  float scale;
};

class PlanBuilder {
 public:
  PlanBuilder(const Model& model, Catalog& catalog, const PlanOptions& options);

  const Model& model() const { return model_; }

  // A matrix [n,k]. The role is the stage that it serves: "attn_q"; tensor "blk.0.attn_q.weight". Throws when
  // missing or of another shape.
  int32_t weight(Stage stage, uint64_t n, uint64_t k);
  // The head: output.weight, or token_embd.weight where there is none (`embedding` is then used again, unless
  // the head's format is forced).
  int32_t head(int32_t embedding, uint64_t n, uint64_t k);
  // Rows of a matrix, for sizes that only a tensor's shape tells. Throws when missing.
  uint64_t rows_of(const std::string& tensor) const;
  // A vector of n numbers as floats, whatever its type in the file. "blk.0.attn_norm.weight".
  int32_t vector(const std::string& tensor, uint64_t n);
  int32_t vector_if_present(const std::string& tensor, uint64_t n);
  int32_t own_vector(const std::string& name, std::vector<float> data);
  // The floats of a vector of the plan.
  const std::vector<float>& floats(int32_t vector) const;

  // Operations; each returns its value. Widths follow from the inputs.
  int32_t embed(Stage stage, int32_t weight);
  int32_t rms_norm(Stage stage, int32_t in, int32_t vector, HeadShape heads, float eps);
  int32_t linear(Stage stage, int32_t in, int32_t weight, int32_t bias);
  int32_t rope(Stage stage, int32_t in, HeadShape heads, const RopeShape& rope);
  int32_t attention(Stage stage, int32_t q, int32_t k, int32_t v, HeadShape heads, uint32_t n_kv_heads,
                    uint32_t window);
  int32_t add(Stage stage, int32_t a, int32_t b);
  int32_t swiglu(Stage stage, int32_t gate, int32_t up);

  // From the next operation on, only tokens whose logits are wanted are needed.
  void begin_head();
  void note(std::string text);
  std::unique_ptr<Plan> finish(uint32_t n_ctx_train, int32_t logits);

 private:
  int32_t bind(const Tensor& tensor, std::string_view role, int32_t layer, std::string_view forced_format);
  // Changes a tensor with scales to packed rows, whose bytes are returned.
  std::shared_ptr<const std::vector<std::byte>> expand(Tensor& tensor);
  std::string_view forced_format(std::string_view tensor, std::string_view role);
  const Tensor& matrix(const std::string& name, uint64_t n, uint64_t k);
  void check_bytes(const Tensor& tensor, const apr_quant_format& format) const;
  const char* keep(std::string text);
  uint32_t width(int32_t value) const;
  apr_op& append(Stage stage, apr_op_kind kind, uint32_t out_width);
  void note_forced();
  void note_unused();

  const Model& model_;
  Catalog& catalog_;
  const PlanOptions& options_;
  std::unique_ptr<Plan> plan_;
  std::set<std::string, std::less<>> used_;                 // tensors
  std::set<size_t> matched_;                                // indices of options_.force_qtype
  std::map<std::string, std::vector<std::string>> forced_;  // "q4_k to q8_0": names of the tensors
  uint32_t head_op_ = 0;
};

// "blk.3.attn_q" or "output_norm".
std::string stage_name(Stage stage);

}  // namespace apr
