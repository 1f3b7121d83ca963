#include "tests/cuda/support/tiny_plan.h"

#include <cmath>
#include <deque>
#include <random>
#include <stdexcept>

#include "tests/cuda/support/formats.h"

namespace apr::test {

namespace {

// "blk.0.ffn_down.weight" -> "ffn_down"
std::string role_of(const std::string& name) {
  const size_t end = name.rfind('.'), begin = name.rfind('.', end - 1);
  return name.substr(begin == std::string::npos ? 0 : begin + 1,
                     begin == std::string::npos ? end : end - begin - 1);
}

}  // namespace

struct TinyPlan::Impl {
  apr_plan plan{};
  std::deque<std::string> names;
  std::deque<std::vector<uint8_t>> data;
  std::deque<std::vector<float>> floats;
  std::deque<apr_weight> weights;
  std::deque<apr_vector> vectors;
  std::deque<apr_value> values;
  std::deque<apr_op> ops;
  std::vector<const apr_weight*> weight_list;
  std::vector<const apr_vector*> vector_list;
  std::vector<const apr_value*> value_list;
  std::vector<const apr_op*> op_list;
  std::mt19937 random;
  TinyShape shape;

  const char* keep(std::string text) { return names.emplace_back(std::move(text)).c_str(); }

  std::vector<float> normal(size_t n, float deviation, float mean = 0) {
    std::normal_distribution<float> draw(mean, deviation);
    std::vector<float> out(n);
    for (float& v : out) v = draw(random);
    return out;
  }

  int32_t value(uint32_t width) {
    value_list.push_back(&values.emplace_back(apr_value{sizeof(apr_value), width}));
    return static_cast<int32_t>(values.size() - 1);
  }
  int32_t vector(const std::string& name, std::vector<float> v) {
    floats.push_back(std::move(v));
    vector_list.push_back(&vectors.emplace_back(
        apr_vector{sizeof(apr_vector), keep(name), floats.back().size(), floats.back().data()}));
    return static_cast<int32_t>(vectors.size() - 1);
  }
  int32_t weight(const std::string& name, const std::string& format_name, uint64_t n, uint64_t k) {
    const apr_quant_format& f = format(format_name);
    if (k % f.block_elements != 0) throw std::runtime_error(name + ": K is not a multiple of the block");
    const std::vector<float> dense = normal(n * k, 1.0f / std::sqrt(static_cast<float>(k)));
    std::vector<uint8_t>& bytes = data.emplace_back(n * k / f.block_elements * f.block_bytes);
    apr_error error = {sizeof(apr_error), {}};
    if (f.quantize(dense.data(), n, k, nullptr, bytes.data(), &error) != APR_OK)
      throw std::runtime_error(error.message);
    weight_list.push_back(&weights.emplace_back(apr_weight{
        sizeof(apr_weight), keep(name), keep(role_of(name)), -1, &f, n, k, bytes.data(), bytes.size()}));
    return static_cast<int32_t>(weights.size() - 1);
  }
  apr_op& op(apr_op_kind kind, const std::string& stage, uint32_t width, std::initializer_list<int32_t> in) {
    apr_op o{};
    o.struct_size = sizeof o;
    o.kind = kind;
    o.stage = keep(stage);
    o.layer = -1;
    for (int i = 0; i < 4; ++i) o.in[i] = i < static_cast<int>(in.size()) ? in.begin()[i] : -1;
    o.out = value(width);
    for (int i = 0; i < 2; ++i) o.weight[i] = o.vector[i] = -1;
    o.scale = 1.0f;
    op_list.push_back(&ops.emplace_back(o));
    return ops.back();
  }

  int32_t norm(const std::string& stage, int32_t in, uint32_t heads, uint32_t dim) {
    apr_op& o = op(APR_OP_RMS_NORM, stage, heads * dim, {in});
    o.vector[0] = vector(stage + ".weight", normal(dim, 0.2f, 1.0f));
    o.n_heads = heads, o.head_dim = dim, o.eps = 1e-5f;
    return o.out;
  }
  int32_t linear(const std::string& stage, int32_t in, const std::string& format_name, uint32_t n, uint32_t k,
                 bool bias) {
    apr_op& o = op(APR_OP_LINEAR, stage, n, {in});
    o.weight[0] = weight(stage + ".weight", format_name, n, k);
    if (bias) o.vector[0] = vector(stage + ".bias", normal(n, 0.1f));
    return o.out;
  }
  int32_t rope(const std::string& stage, int32_t in, uint32_t heads, int32_t frequencies) {
    apr_op& o = op(APR_OP_ROPE, stage, heads * shape.head_dim, {in});
    o.vector[0] = frequencies;
    o.n_heads = heads, o.head_dim = shape.head_dim, o.rope_dims = shape.rope_dims, o.rope = shape.rope;
    return o.out;
  }

  explicit Impl(const TinyShape& s) : random(s.seed), shape(s) {
    const std::string down = s.v_format.empty() ? s.format : s.v_format;
    const uint32_t q_width = s.n_heads * s.head_dim, kv_width = s.n_kv_heads * s.head_dim;
    std::vector<float> inverse(s.rope_dims / 2);
    for (size_t i = 0; i < inverse.size(); ++i)
      inverse[i] = static_cast<float>(std::pow(10000.0, -2.0 * static_cast<double>(i) / s.rope_dims));
    const int32_t frequencies = s.rope == APR_ROPE_NONE ? -1 : vector("frequencies", inverse);
    apr_op& embed = op(APR_OP_EMBED, "embed", s.n_embd, {});
    embed.weight[0] = weight("token_embd.weight", s.format, s.n_vocab, s.n_embd);
    const int32_t table = embed.weight[0];
    int32_t x = embed.out;
    for (uint32_t l = 0; l < s.n_layers; ++l) {
      const std::string b = "blk." + std::to_string(l) + ".";
      const int32_t in = norm(b + "attn_norm", x, 1, s.n_embd);
      int32_t q = linear(b + "attn_q", in, s.format, q_width, s.n_embd, s.bias);
      int32_t k = linear(b + "attn_k", in, s.format, kv_width, s.n_embd, s.bias);
      const int32_t v = linear(b + "attn_v", in, down, kv_width, s.n_embd, s.bias);
      if (s.qk_norm)
        q = norm(b + "attn_q_norm", q, s.n_heads, s.head_dim),
        k = norm(b + "attn_k_norm", k, s.n_kv_heads, s.head_dim);
      if (s.rope != APR_ROPE_NONE)
        q = rope(b + "attn_q_rope", q, s.n_heads, frequencies),
        k = rope(b + "attn_k_rope", k, s.n_kv_heads, frequencies);
      apr_op& attention = op(APR_OP_ATTENTION, b + "attn_out", q_width, {q, k, v});
      attention.n_heads = s.n_heads, attention.n_kv_heads = s.n_kv_heads, attention.head_dim = s.head_dim,
      attention.window = s.window;
      attention.scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
      const int32_t o = linear(b + "attn_output", attention.out, s.format, s.n_embd, q_width, false);
      x = op(APR_OP_ADD, b + "attn_residual", s.n_embd, {x, o}).out;
      const int32_t ffn = norm(b + "ffn_norm", x, 1, s.n_embd);
      const int32_t gate = linear(b + "ffn_gate", ffn, s.format, s.n_ff, s.n_embd, false);
      const int32_t up = linear(b + "ffn_up", ffn, s.format, s.n_ff, s.n_embd, false);
      const int32_t act = op(APR_OP_SWIGLU, b + "ffn_act", s.n_ff, {gate, up}).out;
      const int32_t d = linear(b + "ffn_down", act, down, s.n_embd, s.n_ff, false);
      x = op(APR_OP_ADD, b + "ffn_residual", s.n_embd, {x, d}).out;
    }
    plan.head_op = static_cast<uint32_t>(ops.size());
    const int32_t last = norm("output_norm", x, 1, s.n_embd);
    if (s.tied) {
      apr_op& head = op(APR_OP_LINEAR, "logits", s.n_vocab, {last});
      head.weight[0] = table;
      plan.logits = head.out;
    } else {
      plan.logits = linear("logits", last, down, s.n_vocab, s.n_embd, false);
    }
    plan.struct_size = sizeof plan;
    plan.arch = "tiny", plan.model_name = "tiny";
    plan.n_layers = s.n_layers, plan.n_vocab = s.n_vocab, plan.n_ctx_train = 4096;
    plan.weights = weight_list.data(), plan.n_weights = static_cast<uint32_t>(weight_list.size());
    plan.vectors = vector_list.data(), plan.n_vectors = static_cast<uint32_t>(vector_list.size());
    plan.values = value_list.data(), plan.n_values = static_cast<uint32_t>(value_list.size());
    plan.ops = op_list.data(), plan.n_ops = static_cast<uint32_t>(op_list.size());
  }
};

TinyPlan::TinyPlan(const TinyShape& shape) : impl_(std::make_unique<Impl>(shape)) {}
TinyPlan::~TinyPlan() = default;
const apr_plan& TinyPlan::plan() const { return impl_->plan; }
apr_op& TinyPlan::op(uint32_t index) { return impl_->ops[index]; }
apr_op& TinyPlan::op(const std::string& stage) {
  for (apr_op& o : impl_->ops)
    if (stage == o.stage) return o;
  throw std::runtime_error("no stage " + stage);
}

double nmse(const float* a, const double* b, size_t n) {
  double error = 0, size = 0;
  for (size_t i = 0; i < n; ++i) error += (a[i] - b[i]) * (a[i] - b[i]), size += b[i] * b[i];
  return error / size;
}

}  // namespace apr::test
