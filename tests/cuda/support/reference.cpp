#include <cmath>
#include <cstring>
#include <map>
#include <stdexcept>

#include "tests/cuda/support/tiny_plan.h"

namespace apr::test {

namespace {

using Row = std::vector<double>;

double as_f16(double v) {
  return static_cast<double>(static_cast<float>(static_cast<_Float16>(static_cast<float>(v))));
}

Row normed(const double* x, size_t n, const float* weight, double eps) {
  double square = 0;
  for (size_t i = 0; i < n; ++i) square += x[i] * x[i];
  Row y(n);
  for (size_t i = 0; i < n; ++i) y[i] = x[i] / std::sqrt(square / static_cast<double>(n) + eps) * weight[i];
  return y;
}

}  // namespace

struct Reference::Impl {
  const apr_plan& plan;
  std::vector<std::vector<float>> weights;  // dequantised
  // [attention op][sequence] -> rows of k and v by position
  std::map<std::pair<uint32_t, int32_t>, std::pair<std::vector<Row>, std::vector<Row>>> cache;

  explicit Impl(const apr_plan& p) : plan(p) {
    for (uint32_t i = 0; i < plan.n_weights; ++i) {
      const apr_weight& w = *plan.weights[i];
      weights.emplace_back(w.n * w.k);
      w.format->dequantize(w.data, w.n, w.k, weights.back().data());
    }
  }

  Row token(int32_t id, int32_t position, int32_t sequence) {
    std::vector<Row> v(plan.n_values);
    for (uint32_t i = 0; i < plan.n_ops; ++i)
      v[static_cast<size_t>(plan.ops[i]->out)] = run(i, *plan.ops[i], v, id, position, sequence);
    return v[static_cast<size_t>(plan.logits)];
  }

  Row run(uint32_t index, const apr_op& op, const std::vector<Row>& v, int32_t id, int32_t position,
          int32_t sequence) {
    const auto in = [&](int slot) -> const Row& { return v[static_cast<size_t>(op.in[slot])]; };
    Row out(plan.values[op.out]->width);
    switch (op.kind) {
      case APR_OP_EMBED:
        for (size_t i = 0; i < out.size(); ++i)
          out[i] = weights[static_cast<size_t>(op.weight[0])][static_cast<size_t>(id) * out.size() + i];
        return out;
      case APR_OP_RMS_NORM: {
        Row all;
        for (uint32_t h = 0; h < op.n_heads; ++h) {
          const Row y = normed(in(0).data() + size_t{h} * op.head_dim, op.head_dim,
                               plan.vectors[op.vector[0]]->data, op.eps);
          all.insert(all.end(), y.begin(), y.end());
        }
        return all;
      }
      case APR_OP_LINEAR: {
        const std::vector<float>& w = weights[static_cast<size_t>(op.weight[0])];
        const size_t k = in(0).size();
        for (size_t n = 0; n < out.size(); ++n) {
          double sum = op.vector[0] >= 0 ? plan.vectors[op.vector[0]]->data[n] : 0.0;
          for (size_t i = 0; i < k; ++i) sum += w[n * k + i] * in(0)[i];
          out[n] = sum;
        }
        return out;
      }
      case APR_OP_ROPE: {
        out = in(0);
        for (uint32_t h = 0; h < op.n_heads; ++h)
          for (uint32_t i = 0; i < op.rope_dims / 2; ++i) {
            const size_t base = size_t{h} * op.head_dim;
            const size_t a = base + (op.rope == APR_ROPE_ADJACENT ? 2 * i : i),
                         b = base + (op.rope == APR_ROPE_ADJACENT ? 2 * i + 1 : i + op.rope_dims / 2);
            const double angle = position * static_cast<double>(plan.vectors[op.vector[0]]->data[i]),
                         c = std::cos(angle), s = std::sin(angle);
            out[a] = op.scale * (in(0)[a] * c - in(0)[b] * s);
            out[b] = op.scale * (in(0)[a] * s + in(0)[b] * c);
          }
        return out;
      }
      case APR_OP_ATTENTION:
        return attention(index, op, in(0), in(1), in(2), position, sequence);
      case APR_OP_ADD:
        for (size_t i = 0; i < out.size(); ++i) out[i] = in(0)[i] + in(1)[i];
        return out;
      case APR_OP_SWIGLU:
        for (size_t i = 0; i < out.size(); ++i) out[i] = in(0)[i] / (1.0 + std::exp(-in(0)[i])) * in(1)[i];
        return out;
    }
    throw std::runtime_error("unknown operation");
  }

  Row attention(uint32_t index, const apr_op& op, const Row& q, const Row& k, const Row& v, int32_t position,
                int32_t sequence) {
    auto& [ks, vs] = cache[{index, sequence}];
    ks.resize(static_cast<size_t>(position));
    vs.resize(static_cast<size_t>(position));
    Row k16(k.size()), v16(v.size());
    for (size_t i = 0; i < k.size(); ++i) k16[i] = as_f16(k[i]), v16[i] = as_f16(v[i]);
    ks.push_back(k16), vs.push_back(v16);
    Row out(q.size(), 0.0);
    const uint32_t dim = op.head_dim, group = op.n_heads / op.n_kv_heads;
    const int32_t begin =
        op.window > 0 ? std::max<int32_t>(0, position + 1 - static_cast<int32_t>(op.window)) : 0;
    for (uint32_t h = 0; h < op.n_heads; ++h) {
      Row score;
      double largest = -INFINITY, total = 0;
      for (int32_t p = begin; p <= position; ++p) {
        double dot = 0;
        for (uint32_t d = 0; d < dim; ++d)
          dot += q[size_t{h} * dim + d] * ks[static_cast<size_t>(p)][size_t{h / group} * dim + d];
        score.push_back(dot * op.scale);
        largest = std::max(largest, score.back());
      }
      for (double& s : score) s = std::exp(s - largest), total += s;
      for (int32_t p = begin; p <= position; ++p)
        for (uint32_t d = 0; d < dim; ++d)
          out[size_t{h} * dim + d] += score[static_cast<size_t>(p - begin)] / total *
                                      vs[static_cast<size_t>(p)][size_t{h / group} * dim + d];
    }
    return out;
  }
};

Reference::Reference(const apr_plan& plan) : impl_(std::make_unique<Impl>(plan)) {}
Reference::~Reference() = default;

std::vector<double> Reference::step(const std::vector<int32_t>& tokens, const std::vector<int32_t>& positions,
                                    const std::vector<int32_t>& sequences) {
  std::vector<double> all;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const Row logits = impl_->token(tokens[i], positions[i], sequences[i]);
    all.insert(all.end(), logits.begin(), logits.end());
  }
  return all;
}

}  // namespace apr::test
