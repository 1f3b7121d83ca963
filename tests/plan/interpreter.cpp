#include "tests/plan/interpreter.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace apr::test {

namespace {

using Matrix = std::vector<double>;  // [tokens][width]

class Interpreter {
 public:
  Interpreter(const apr_plan& plan, const std::vector<int32_t>& tokens)
      : plan_(plan), tokens_(tokens), values_(plan.n_values) {}

  Matrix run() {
    for (uint32_t i = 0; i < plan_.n_ops; ++i) step(*plan_.ops[i]);
    return values_[static_cast<size_t>(plan_.logits)];
  }

 private:
  size_t width(int32_t value) const { return plan_.values[value]->width; }
  const Matrix& in(const apr_op& op, int i) const {
    const Matrix& matrix = values_.at(static_cast<size_t>(op.in[i]));
    if (matrix.size() != tokens_.size() * width(op.in[i]))
      throw std::logic_error("an input is not computed yet");
    return matrix;
  }
  const float* vector(const apr_op& op) const { return plan_.vectors[op.vector[0]]->data; }
  std::vector<float> rows(const apr_weight& weight) const {
    std::vector<float> floats(weight.n * weight.k);
    weight.format->dequantize(weight.data, weight.n, weight.k, floats.data());
    return floats;
  }

  void step(const apr_op& op) {
    Matrix& out = values_.at(static_cast<size_t>(op.out));
    if (!out.empty()) throw std::logic_error("a value is written twice");
    out.resize(tokens_.size() * width(op.out));
    switch (op.kind) {
      case APR_OP_EMBED:
        return embed(op, out);
      case APR_OP_RMS_NORM:
        return rms_norm(op, out);
      case APR_OP_LINEAR:
        return linear(op, out);
      case APR_OP_ROPE:
        return rope(op, out);
      case APR_OP_ATTENTION:
        return attention(op, out);
      case APR_OP_ADD:
        for (size_t i = 0; i < out.size(); ++i) out[i] = in(op, 0)[i] + in(op, 1)[i];
        return;
      case APR_OP_SWIGLU:
        for (size_t i = 0; i < out.size(); ++i)
          out[i] = in(op, 0)[i] / (1 + std::exp(-in(op, 0)[i])) * in(op, 1)[i];
        return;
    }
    throw std::logic_error("unknown operation");
  }

  void embed(const apr_op& op, Matrix& out) {
    const apr_weight& weight = *plan_.weights[op.weight[0]];
    const std::vector<float> table = rows(weight);
    for (size_t m = 0; m < tokens_.size(); ++m) {
      std::copy_n(table.begin() + static_cast<int64_t>(static_cast<size_t>(tokens_[m]) * weight.k), weight.k,
                  out.begin() + static_cast<int64_t>(m * weight.k));
    }
  }

  void rms_norm(const apr_op& op, Matrix& out) {
    const Matrix& x = in(op, 0);
    for (size_t begin = 0; begin < x.size(); begin += op.head_dim) {
      double squares = 0;
      for (size_t i = 0; i < op.head_dim; ++i) squares += x[begin + i] * x[begin + i];
      const double factor = 1 / std::sqrt(squares / op.head_dim + op.eps);
      for (size_t i = 0; i < op.head_dim; ++i) out[begin + i] = x[begin + i] * factor * vector(op)[i];
    }
  }

  void linear(const apr_op& op, Matrix& out) {
    const apr_weight& weight = *plan_.weights[op.weight[0]];
    const std::vector<float> w = rows(weight);
    const Matrix& x = in(op, 0);
    for (size_t m = 0; m < tokens_.size(); ++m) {
      for (size_t n = 0; n < weight.n; ++n) {
        double sum = op.vector[0] >= 0 ? vector(op)[n] : 0;
        for (size_t k = 0; k < weight.k; ++k) sum += x[m * weight.k + k] * w[n * weight.k + k];
        out[m * weight.n + n] = sum;
      }
    }
  }

  void rope(const apr_op& op, Matrix& out) {
    out = in(op, 0);
    const size_t half = op.rope_dims / 2;
    for (size_t m = 0; m < tokens_.size(); ++m) {
      for (size_t h = 0; h < op.n_heads; ++h) {
        double* head = out.data() + m * width(op.out) + h * op.head_dim;
        for (size_t i = 0; i < half; ++i) {
          double& a = op.rope == APR_ROPE_ADJACENT ? head[2 * i] : head[i];
          double& b = op.rope == APR_ROPE_ADJACENT ? head[2 * i + 1] : head[i + half];
          const double angle = static_cast<double>(m) * vector(op)[i];
          const double c = op.scale * std::cos(angle), s = op.scale * std::sin(angle), first = a;
          a = first * c - b * s;
          b = first * s + b * c;
        }
      }
    }
  }

  void attention(const apr_op& op, Matrix& out) {
    const size_t dim = op.head_dim, group = op.n_heads / op.n_kv_heads, kv_width = op.n_kv_heads * dim;
    const Matrix &q = in(op, 0), &k = in(op, 1), &v = in(op, 2);
    for (size_t p = 0; p < tokens_.size(); ++p) {
      const size_t first = op.window && p + 1 > op.window ? p + 1 - op.window : 0;
      for (size_t h = 0; h < op.n_heads; ++h) {
        const double* query = q.data() + p * op.n_heads * dim + h * dim;
        std::vector<double> score;
        for (size_t at = first; at <= p; ++at) {
          const double* key = k.data() + at * kv_width + h / group * dim;
          double dot = 0;
          for (size_t i = 0; i < dim; ++i) dot += query[i] * key[i];
          score.push_back(op.scale * dot);
        }
        const double largest = *std::max_element(score.begin(), score.end());
        double total = 0;
        for (double& s : score) total += s = std::exp(s - largest);
        for (size_t at = first; at <= p; ++at) {
          const double* value = v.data() + at * kv_width + h / group * dim;
          for (size_t i = 0; i < dim; ++i)
            out[p * op.n_heads * dim + h * dim + i] += score[at - first] / total * value[i];
        }
      }
    }
  }

  const apr_plan& plan_;
  const std::vector<int32_t>& tokens_;
  std::vector<Matrix> values_;
};

}  // namespace

std::vector<double> interpret(const apr_plan& plan, const std::vector<int32_t>& tokens) {
  return Interpreter(plan, tokens).run();
}

}  // namespace apr::test
