#include "plan_check.h"

#include "failure.h"

namespace apr::cpu {
namespace {

class Checker {
 public:
  explicit Checker(CheckedPlan& checked) : c_(checked), p_(checked.plan) {}

  void op(uint32_t index) {
    const apr_op& o = c_.ops[index];
    stage_ = o.stage;
    if (!stage_ || !*stage_) fail(APR_INVALID, "operation %u of the plan has no stage name", index);
    head_ = index >= p_.head_op;
    switch (o.kind) {
      case APR_OP_EMBED:
        embed(o);
        break;
      case APR_OP_RMS_NORM:
        norm(o);
        break;
      case APR_OP_LINEAR:
        linear(o);
        break;
      case APR_OP_ROPE:
        rope(o);
        break;
      case APR_OP_ATTENTION:
        attention(o);
        break;
      case APR_OP_ADD:
      case APR_OP_SWIGLU:
        same(width(o.in[0]), width(o.out), "its first input's and its output's width");
        same(width(o.in[1]), width(o.out), "its second input's and its output's width");
        break;
      default:
        fail(APR_UNSUPPORTED, "%s: operation kind %d is not known to this backend", stage_,
             static_cast<int>(o.kind));
    }
    if (c_.producers[static_cast<size_t>(o.out)] >= 0)
      fail(APR_INVALID, "%s writes value %d, which %s has written", stage_, o.out,
           c_.ops[static_cast<size_t>(c_.producers[static_cast<size_t>(o.out)])].stage);
    c_.producers[static_cast<size_t>(o.out)] = static_cast<int32_t>(index);
    for (const int32_t in : o.in)
      if (in == o.out) fail(APR_INVALID, "%s reads value %d, which it writes", stage_, in);
  }

  void inputs(uint32_t index, int count) {
    const apr_op& o = c_.ops[index];
    for (int i = 0; i < count; ++i)
      if (c_.producers[static_cast<size_t>(o.in[i])] < 0)
        fail(APR_INVALID, "%s reads value %d before an operation has written it", o.stage, o.in[i]);
  }

  static int input_count(apr_op_kind kind) {
    switch (kind) {
      case APR_OP_EMBED:
        return 0;
      case APR_OP_RMS_NORM:
      case APR_OP_LINEAR:
      case APR_OP_ROPE:
        return 1;
      case APR_OP_ATTENTION:
        return 3;
      case APR_OP_ADD:
      case APR_OP_SWIGLU:
        return 2;
    }
    return 0;
  }

 private:
  void same(uint64_t a, uint64_t b, const char* what) const {
    if (a != b)
      fail(APR_INVALID, "%s: %s differ: %llu and %llu", stage_, what, static_cast<unsigned long long>(a),
           static_cast<unsigned long long>(b));
  }
  uint64_t width(int32_t value) const {
    if (value < 0 || static_cast<size_t>(value) >= c_.widths.size())
      fail(APR_INVALID, "%s refers to value %d of %zu", stage_, value, c_.widths.size());
    return c_.widths[static_cast<size_t>(value)];
  }
  const apr_vector& vector(int32_t index) const {
    if (index < 0 || static_cast<size_t>(index) >= c_.vectors.size())
      fail(APR_INVALID, "%s refers to vector %d of %zu", stage_, index, c_.vectors.size());
    const apr_vector& v = c_.vectors[static_cast<size_t>(index)];
    if (!v.data) fail(APR_INVALID, "%s: vector %d (%s) has no data", stage_, index, v.name ? v.name : "");
    return v;
  }
  apr_weight weight(int32_t index) const {
    if (index < 0 || static_cast<uint32_t>(index) >= p_.n_weights)
      fail(APR_INVALID, "%s refers to weight %d of %u", stage_, index, p_.n_weights);
    return read_struct(p_.weights[index], "a weight");
  }

  void embed(const apr_op& o) {
    same(weight(o.weight[0]).k, width(o.out), "columns of its table and its width");
  }

  void norm(const apr_op& o) {
    same(width(o.in[0]), width(o.out), "widths of input and output");
    if (o.n_heads == 0 || width(o.out) % o.n_heads != 0)
      fail(APR_INVALID, "%s: %u groups of %llu columns", stage_, o.n_heads,
           static_cast<unsigned long long>(width(o.out)));
    same(vector(o.vector[0]).n, width(o.out) / o.n_heads, "length of its weight and columns of a group");
  }

  void linear(const apr_op& o) {
    const apr_weight w = weight(o.weight[0]);
    same(w.k, width(o.in[0]), "columns of its weight and width of its input");
    same(w.n, width(o.out), "rows of its weight and width of its output");
    if (o.vector[0] >= 0) same(vector(o.vector[0]).n, w.n, "length of its bias and rows of its weight");
  }

  void rope(const apr_op& o) {
    same(width(o.in[0]), width(o.out), "widths of input and output");
    same(uint64_t{o.n_heads} * o.head_dim, width(o.out), "heads * head_dim and its width");
    if (o.rope != APR_ROPE_ADJACENT && o.rope != APR_ROPE_HALVES)
      fail(APR_UNSUPPORTED, "%s: rotary kind %d is not known to this backend", stage_,
           static_cast<int>(o.rope));
    if (o.rope_dims == 0 || o.rope_dims % 2 != 0 || o.rope_dims > o.head_dim)
      fail(APR_INVALID, "%s rotates %u of %u columns; it must be an even number of them", stage_, o.rope_dims,
           o.head_dim);
    same(vector(o.vector[0]).n, o.rope_dims / 2, "number of frequencies and of rotated pairs");
  }

  void attention(const apr_op& o) {
    if (head_) fail(APR_UNSUPPORTED, "%s: attention among the operations of wanted tokens only", stage_);
    if (o.n_kv_heads == 0 || o.n_heads == 0 || o.head_dim == 0 || o.n_heads % o.n_kv_heads != 0)
      fail(APR_INVALID, "%s: %u heads of %u columns over %u KV heads", stage_, o.n_heads, o.head_dim,
           o.n_kv_heads);
    same(width(o.in[0]), uint64_t{o.n_heads} * o.head_dim, "width of q and heads * head_dim");
    same(width(o.in[1]), uint64_t{o.n_kv_heads} * o.head_dim, "width of k and KV heads * head_dim");
    same(width(o.in[2]), uint64_t{o.n_kv_heads} * o.head_dim, "width of v and KV heads * head_dim");
    same(width(o.out), width(o.in[0]), "widths of q and output");
  }

  CheckedPlan& c_;
  const apr_plan& p_;
  const char* stage_ = "";
  bool head_ = false;
};

}  // namespace

CheckedPlan check_plan(const apr_plan* plan) {
  CheckedPlan c;
  c.plan = read_struct(plan, "the plan");
  const apr_plan& p = c.plan;
  for (uint32_t i = 0; i < p.n_ops; ++i) c.ops.push_back(read_struct(p.ops[i], "an operation of the plan"));
  for (uint32_t i = 0; i < p.n_values; ++i) {
    c.widths.push_back(read_struct(p.values[i], "a value of the plan").width);
    if (c.widths.back() == 0) fail(APR_INVALID, "value %u of the plan has no columns", i);
  }
  for (uint32_t i = 0; i < p.n_vectors; ++i)
    c.vectors.push_back(read_struct(p.vectors[i], "a vector of the plan"));
  c.producers.assign(p.n_values, -1);
  if (p.n_ops == 0) fail(APR_INVALID, "the plan has no operations");
  if (p.head_op >= p.n_ops)
    fail(APR_INVALID,
         "the plan's head_op is %u of %u operations; the logits must be computed for wanted tokens",
         p.head_op, p.n_ops);

  Checker checker(c);
  for (uint32_t i = 0; i < p.n_ops; ++i) {
    checker.op(i);
    checker.inputs(i, Checker::input_count(c.ops[i].kind));
  }
  if (p.logits < 0 || static_cast<uint32_t>(p.logits) >= p.n_values)
    fail(APR_INVALID, "the plan's logits are value %d of %u", p.logits, p.n_values);
  const auto logits = static_cast<size_t>(p.logits);
  if (c.widths[logits] != p.n_vocab)
    fail(APR_INVALID, "the logits have %u columns, but the vocabulary has %u tokens", c.widths[logits],
         p.n_vocab);
  if (c.producers[logits] < static_cast<int32_t>(p.head_op))
    fail(APR_INVALID, "the logits are not computed by one of the operations from head_op (%u) on", p.head_op);
  return c;
}

}  // namespace apr::cpu
