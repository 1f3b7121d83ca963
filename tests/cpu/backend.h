// The backend plugin as a program sees it, and plans made by hand.
#pragma once

#include <apr/backend.h>

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "formats.h"

namespace apr::test {

// The library of the build tree; ends the test program with a message when it cannot be opened.
const apr_backend& backend();

struct DeviceOptions {
  std::string isa;  // "" = the processor's highest
  uint32_t threads = 2;
  std::string weights = "mapped";
};
// Instruction sets that this processor has: "portable", perhaps "avx2", "avx512".
std::vector<std::string> instruction_sets();

struct SessionOptions {
  uint32_t n_ctx = 64, n_sequences = 1, n_batch = 64;
  bool precise = false;
  std::vector<const apr_kernel_rule*> rules = {};
  uint32_t n_top = 0;
};

// A rule that matches anything; callers narrow it.
apr_kernel_rule any_rule(const char* kernel);

struct Token {
  int32_t token, position, sequence = 0;
  bool want = true;
};
struct Result {
  apr_status status;
  std::string error;
  std::vector<float> logits;       // [wanted][vocab]
  std::vector<int32_t> argmax;     // [wanted]
  std::vector<apr_candidate> top;  // [wanted][n_top], of a session with n_top > 0
};

// A device with one plan loaded.
class Loaded {
 public:
  Loaded(const apr_plan& plan, const DeviceOptions& device = {}, const SessionOptions& session = {});
  ~Loaded();
  Loaded(const Loaded&) = delete;

  bool ok() const { return session_ != nullptr; }
  const std::string& error() const { return error_; }
  apr_status status() const { return status_; }

  Result step(const std::vector<Token>& tokens, bool logits = true, bool argmax = false);
  // Steps, keeping what each stage gives: [rows][width] one after the other.
  std::map<std::string, std::vector<float>> taps(const std::vector<Token>& tokens);
  apr_session_info info();
  std::vector<apr_kernel_info> kernels();
  apr_device* device() const { return device_; }
  apr_session* session() const { return session_; }

 private:
  apr_device* device_ = nullptr;
  apr_session* session_ = nullptr;
  apr_status status_ = APR_OK;
  std::string error_;
  uint32_t n_vocab_;
  uint32_t n_top_;
};

// A plan, operation by operation. Values are named by number, weights and vectors are kept alive.
class PlanMaker {
 public:
  int32_t value(uint32_t width);
  int32_t weight(const Packed& w, const std::string& name = "");
  int32_t vector(const std::vector<float>& data);

  // Each makes an output value and gives its number.
  int32_t embed(const std::string& stage, int32_t weight);
  int32_t norm(const std::string& stage, int32_t in, int32_t weights, uint32_t groups = 1, float eps = 1e-6f);
  int32_t linear(const std::string& stage, int32_t in, int32_t weight, int32_t bias = -1);
  int32_t rope(const std::string& stage, int32_t in, int32_t frequencies, uint32_t heads, apr_rope_kind kind,
               float scale = 1.0f);
  int32_t attention(const std::string& stage, int32_t q, int32_t k, int32_t v, uint32_t heads,
                    uint32_t kv_heads, float scale, uint32_t window = 0);
  int32_t add(const std::string& stage, int32_t a, int32_t b);
  int32_t swiglu(const std::string& stage, int32_t gate, int32_t up);

  // Operations made from here on are for wanted tokens.
  void head() { head_op_ = static_cast<uint32_t>(ops.size()); }
  // The plan; the last operation gives the logits. It refers to this object.
  const apr_plan& plan();

  std::deque<apr_op> ops;  // may be bent before plan()
  std::deque<apr_weight> weights;
  std::deque<apr_value> values;
  std::deque<apr_vector> vectors;
  apr_plan c{};

 private:
  apr_op& op(apr_op_kind kind, const std::string& stage, uint32_t width);
  std::deque<std::string> names_;
  std::deque<Packed> packed_;
  std::deque<std::vector<float>> floats_;
  std::vector<const apr_op*> op_list_;
  std::vector<const apr_weight*> weight_list_;
  std::vector<const apr_value*> value_list_;
  std::vector<const apr_vector*> vector_list_;
  uint32_t head_op_ = UINT32_MAX;
};

}  // namespace apr::test
