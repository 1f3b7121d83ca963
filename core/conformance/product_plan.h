// The smallest plan that uses a format as models do: rows of a packed embedding times a packed matrix.
#pragma once

#include <algorithm>
#include <vector>

#include "apr/plan.h"
#include "core/base/error.h"
#include "core/conformance/samples.h"
#include "core/runtime/session.h"

namespace apr::conformance {

// Y[M,N] = E[token,:] W[N,K]^T, with as many tokens as rows of W.
struct Product {
  uint64_t n, k;
  std::vector<uint8_t> table, matrix;
  std::vector<float> x, w;  // both dequantised: [n][k]

  Product(const apr_quant_format& f, uint64_t n_, uint64_t k_, uint64_t seed) : n(n_), k(k_) {
    Random random(seed);
    for (std::vector<uint8_t>* packed : {&table, &matrix}) {
      // Without outliers, which would leave an activation's neighbours few of its 8 bits.
      const std::vector<float> source = weights(Weights::Normal, n * k, random);
      if (!f.quantize) {
        *packed = normal_rows(f, n, k, random);
        continue;
      }
      packed->resize(n * row_bytes(f, k));
      Message message;
      if (f.quantize(source.data(), n, k, nullptr, packed->data(), &message) != APR_OK)
        throw Error("quantize refuses normal weights: {}", message.text());
    }
    x = dequantized(f, table, k);
    w = dequantized(f, matrix, k);
  }
  double exact(uint64_t token, uint64_t row) const {
    double sum = 0;
    for (uint64_t j = 0; j < k; ++j) sum += double{x[token * k + j]} * w[row * k + j];
    return sum;
  }
};

// The plan's structs, which point to one another: made once, never copied.
class Plan {
 public:
  Plan(const apr_quant_format& f, const Product& p)
      : table_{sizeof(apr_weight), "token_embd.weight", "token_embd", -1, &f, p.n, p.k,
               p.table.data(),     p.table.size()},
        matrix_{sizeof(apr_weight), "output.weight", "output", -1, &f, p.n, p.k,
                p.matrix.data(),    p.matrix.size()},
        values_{{sizeof(apr_value), static_cast<uint32_t>(p.k)},
                {sizeof(apr_value), static_cast<uint32_t>(p.n)}} {
    for (apr_op* op : {&embed_, &linear_}) {
      op->struct_size = sizeof(apr_op);
      op->layer = -1;
      std::fill(op->in, op->in + 4, -1);
      std::fill(op->weight, op->weight + 2, -1);
      std::fill(op->vector, op->vector + 2, -1);
      op->scale = 1.0f;
    }
    embed_.kind = APR_OP_EMBED, embed_.stage = "embed", embed_.out = 0, embed_.weight[0] = 0;
    linear_.kind = APR_OP_LINEAR, linear_.stage = "logits", linear_.in[0] = 0, linear_.out = 1,
    linear_.weight[0] = 1;
    plan_.struct_size = sizeof plan_;
    plan_.arch = "conformance", plan_.model_name = f.name;
    plan_.n_vocab = static_cast<uint32_t>(p.n), plan_.n_ctx_train = 4096;
    plan_.weights = weight_list_, plan_.n_weights = 2;
    plan_.values = value_list_, plan_.n_values = 2;
    plan_.ops = op_list_, plan_.n_ops = 2;
    plan_.head_op = 1, plan_.logits = 1;
  }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
  const apr_plan& c() const { return plan_; }

 private:
  apr_weight table_, matrix_;
  apr_value values_[2];
  apr_op embed_{}, linear_{};
  const apr_weight* weight_list_[2] = {&table_, &matrix_};
  const apr_value* value_list_[2] = {&values_[0], &values_[1]};
  const apr_op* op_list_[2] = {&embed_, &linear_};
  apr_plan plan_{};
};

// What devices are checked with: N is no multiple of a tile and never K; K has an odd number of blocks.
inline Product device_product(const apr_quant_format& f) {
  return Product(f, 149, columns(f, 384) + f.block_elements, 21);
}
inline LoadRequest device_request(bool precise) {
  LoadRequest request;
  request.n_ctx = 256;
  request.n_batch = 256;
  request.precise = precise;
  return request;
}

// A format that offers only the file's layout: a device must then use it.
struct RowMajorOnly {
  apr_codec codec;
  apr_quant_format format;
  explicit RowMajorOnly(const apr_quant_format& f) : codec(*f.codec), format(f) {
    codec.n_layouts = 1;
    format.codec = &codec;
  }
};

}  // namespace apr::conformance
