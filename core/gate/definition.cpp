#include "core/gate/definition.h"

#include <algorithm>
#include <cmath>
#include <mutex>

#include "core/base/error.h"
#include "core/base/thread_pool.h"

namespace apr {

namespace {

// A number rounded to p bits is off by at most half a unit of its last place, evenly spread: (2^-p)^2 / 3 of
// its square.
constexpr double kF16 = 0x1p-22 / 3;  // 11 bits
constexpr double kFloat = 0x1p-24;    // relative error of one float32 operation
constexpr uint32_t kInt8Block = 32;   // columns that share a scale, in the coarsest backend

double square(double x) { return x * x; }

const std::vector<uint32_t>& all_columns(std::vector<uint32_t>& storage, const std::vector<uint32_t>& columns,
                                         uint64_t n) {
  if (!columns.empty()) return columns;
  storage.resize(n);
  for (uint64_t i = 0; i < n; ++i) storage[i] = static_cast<uint32_t>(i);
  return storage;
}

// Three sums over a row of W at once; eight partial sums each, so that the compiler may use vectors.
struct RowSums {
  double dot, noise;
};
RowSums row_sums(const float* w, const double* x, const double* v, uint64_t k) {
  double dot[8] = {}, noise[8] = {};
  uint64_t i = 0;
  for (; i + 8 <= k; i += 8)
    for (uint64_t j = 0; j < 8; ++j) {
      const double wj = w[i + j];
      dot[j] += wj * x[i + j];
      noise[j] += wj * wj * v[i + j];
    }
  for (; i < k; ++i) dot[0] += static_cast<double>(w[i]) * x[i], noise[0] += square(w[i]) * v[i];
  for (int j = 1; j < 8; ++j) dot[0] += dot[j], noise[0] += noise[j];
  return {dot[0], noise[0]};
}

bool is_integer(const apr_quant_format& format) {
  return format.int_group != 0 || (format.codec != nullptr && format.codec->kind == APR_CODEC_INTEGER);
}

}  // namespace

size_t Estimate::index(uint32_t row) const {
  const auto at = std::lower_bound(rows.begin(), rows.end(), row);
  if (at == rows.end() || *at != row) throw Error("internal error: row {} was not estimated", row);
  return static_cast<size_t>(at - rows.begin());
}

Estimate Definition::exact(const float* data, uint32_t n_rows, uint32_t width) {
  Estimate e;
  e.width = width;
  for (uint32_t r = 0; r < n_rows; ++r) e.rows.push_back(r);
  e.mean.assign(data, data + uint64_t{n_rows} * width);
  e.variance.assign(e.mean.size(), 0.0);
  return e;
}

Estimate Definition::sized(const apr_op& op, const std::vector<uint32_t>& rows) const {
  Estimate e;
  e.width = plan_.values[op.out]->width;
  e.rows = rows;
  e.mean.assign(rows.size() * e.width, 0.0);
  e.variance.assign(e.mean.size(), 0.0);
  return e;
}

Estimate Definition::evaluate(const apr_op& op, const StepRows& step, const std::vector<uint32_t>& rows,
                              const Estimate* const inputs[4], const std::vector<uint32_t>& columns,
                              const KvHistory* history) const {
  switch (op.kind) {
    case APR_OP_EMBED:
      return embed(op, step, rows);
    case APR_OP_RMS_NORM:
      return rms_norm(op, rows, *inputs[0]);
    case APR_OP_LINEAR:
      return linear(op, rows, *inputs[0], columns);
    case APR_OP_ROPE:
      return rope(op, step, rows, *inputs[0]);
    case APR_OP_ATTENTION:
      return attention(op, step, rows, *inputs[0], *history);
    case APR_OP_ADD:
      return add(op, rows, *inputs[0], *inputs[1]);
    case APR_OP_SWIGLU:
      return swiglu(op, rows, *inputs[0], *inputs[1]);
  }
  throw Error("stage {}: operation kind {} has no definition here", op.stage, static_cast<int>(op.kind));
}

Estimate Definition::embed(const apr_op& op, const StepRows& step, const std::vector<uint32_t>& rows) const {
  Estimate e = sized(op, rows);
  const apr_weight& w = *plan_.weights[op.weight[0]];
  std::vector<float> row(w.k);
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto token = static_cast<uint64_t>((*step.tokens)[rows[i]]);
    w.format->dequantize(static_cast<const std::byte*>(w.data) + token * (w.bytes / w.n), 1, w.k, row.data());
    for (uint64_t c = 0; c < w.k; ++c)
      e.mean_of(i)[c] = row[c], e.variance_of(i)[c] = square(2 * kFloat * row[c]);
  }
  return e;
}

Estimate Definition::rms_norm(const apr_op& op, const std::vector<uint32_t>& rows, const Estimate& x) const {
  Estimate e = sized(op, rows);
  const float* weight = plan_.vectors[op.vector[0]]->data;
  const double own =
      kFloat * (8 + std::sqrt(static_cast<double>(op.head_dim)));  // of the sum, the root and two products
  for (size_t i = 0; i < rows.size(); ++i) {
    const size_t from = x.index(rows[i]);
    for (uint32_t h = 0; h < op.n_heads; ++h) {
      const double* in = x.mean_of(from) + uint64_t{h} * op.head_dim;
      const double* in_variance = x.variance_of(from) + uint64_t{h} * op.head_dim;
      double sum = 0, common = 0;
      for (uint32_t c = 0; c < op.head_dim; ++c)
        sum += square(in[c]), common += square(in[c]) * in_variance[c];
      const double factor = 1 / std::sqrt(sum / op.head_dim + op.eps);
      common = sum > 0 ? common / square(sum) : 0;  // of the factor, relative
      double *out = e.mean_of(i) + uint64_t{h} * op.head_dim,
             *variance = e.variance_of(i) + uint64_t{h} * op.head_dim;
      for (uint32_t c = 0; c < op.head_dim; ++c) {
        out[c] = in[c] * factor * weight[c];
        variance[c] = square(factor * weight[c]) * in_variance[c] + square(out[c]) * (common + square(own));
      }
    }
  }
  return e;
}

Estimate Definition::linear(const apr_op& op, const std::vector<uint32_t>& rows, const Estimate& x,
                            const std::vector<uint32_t>& wanted) const {
  Estimate e = sized(op, rows);
  const apr_weight& w = *plan_.weights[op.weight[0]];
  const uint64_t k = w.k, m = rows.size();
  std::vector<double> in(m * k), noise(m * k);
  const double accumulation = static_cast<double>(k) * square(kFloat);
  for (size_t i = 0; i < m; ++i) {
    const size_t from = x.index(rows[i]);
    const double *mean = x.mean_of(from), *variance = x.variance_of(from);
    for (uint64_t begin = 0; begin < k; begin += kInt8Block) {
      const uint64_t end = std::min<uint64_t>(k, begin + kInt8Block);
      double most = 0;
      for (uint64_t c = begin; c < end; ++c) most = std::max(most, std::fabs(mean[c]));
      // A step of most / 127, evenly spread over it.
      const double step = int8_ && is_integer(*w.format) ? most / 127 : 0;
      for (uint64_t c = begin; c < end; ++c) {
        in[i * k + c] = mean[c];
        noise[i * k + c] = variance[c] + square(step) / 12 + square(mean[c]) * (2 * kF16 + accumulation);
      }
    }
  }
  std::vector<uint32_t> storage;
  const std::vector<uint32_t>& columns = all_columns(storage, wanted, w.n);
  const float* bias = op.vector[0] >= 0 ? plan_.vectors[op.vector[0]]->data : nullptr;
  e.part.assign(e.mean.size(), 0.0);
  std::vector<double> projection(m * k, 0.0);  // sum over n of part[n] * W[n], for each row of x
  std::mutex mutex;
  const uint64_t row_bytes = w.bytes / w.n;
  pool_.parallel_for(columns.size(), 16, [&](size_t begin, size_t end) {
    std::vector<float> packed(k);
    std::vector<double> own(m * k, 0.0);
    for (size_t at = begin; at < end; ++at) {
      const uint64_t n = columns[at];
      w.format->dequantize(static_cast<const std::byte*>(w.data) + n * row_bytes, 1, k, packed.data());
      for (size_t i = 0; i < m; ++i) {
        const RowSums sums = row_sums(packed.data(), in.data() + i * k, noise.data() + i * k, k);
        e.part[i * e.width + n] = sums.dot;
        e.mean[i * e.width + n] = sums.dot + (bias != nullptr ? bias[n] : 0.0);
        e.variance[i * e.width + n] = sums.noise;
        double* g = own.data() + i * k;
        for (uint64_t c = 0; c < k; ++c) g[c] += sums.dot * packed[c];
      }
    }
    const std::lock_guard lock(mutex);
    for (size_t c = 0; c < own.size(); ++c) projection[c] += own[c];
  });
  for (size_t i = 0; i < m; ++i) {
    double sum = 0;
    for (uint64_t c = 0; c < k; ++c) sum += square(projection[i * k + c]) * noise[i * k + c];
    e.part_noise.push_back(sum);
  }
  return e;
}

std::vector<double> Definition::transposed_linear(const apr_op& op, const Estimate& input,
                                                  uint32_t row) const {
  const apr_weight& w = *plan_.weights[op.weight[0]];
  const double* x = input.mean_of(input.index(row));
  std::vector<double> y(w.n, 0.0);
  std::vector<float> packed(w.k);
  // Element j of the flat matrix is W'[j / N][j % N], N floats for each of K columns of x.
  for (uint64_t r = 0, flat = 0; r < w.n; ++r) {
    w.format->dequantize(static_cast<const std::byte*>(w.data) + r * (w.bytes / w.n), 1, w.k, packed.data());
    for (uint64_t c = 0; c < w.k; ++c, ++flat) y[flat % w.n] += packed[c] * x[flat / w.n];
  }
  if (op.vector[0] >= 0)
    for (uint64_t n = 0; n < w.n; ++n) y[n] += plan_.vectors[op.vector[0]]->data[n];
  return y;
}

Estimate Definition::rope(const apr_op& op, const StepRows& step, const std::vector<uint32_t>& rows,
                          const Estimate& x) const {
  Estimate e = sized(op, rows);
  const float* frequency = plan_.vectors[op.vector[0]]->data;
  for (size_t i = 0; i < rows.size(); ++i) {
    const size_t from = x.index(rows[i]);
    std::copy_n(x.mean_of(from), e.width, e.mean_of(i));
    std::copy_n(x.variance_of(from), e.width, e.variance_of(i));
    for (uint32_t h = 0; h < op.n_heads; ++h)
      for (uint32_t p = 0; p < op.rope_dims / 2; ++p) {
        const uint64_t base = uint64_t{h} * op.head_dim;
        const uint64_t a = base + (op.rope == APR_ROPE_ADJACENT ? 2 * p : p),
                       b = base + (op.rope == APR_ROPE_ADJACENT ? 2 * p + 1 : p + op.rope_dims / 2);
        const double angle = (*step.positions)[rows[i]] * static_cast<double>(frequency[p]),
                     c = std::cos(angle), s = std::sin(angle);
        const double u = x.mean_of(from)[a], v = x.mean_of(from)[b], uu = x.variance_of(from)[a],
                     vv = x.variance_of(from)[b];
        // The angle is a float32 product, and a large one has few bits left behind the point.
        const double own =
            square(op.scale * kFloat) * (square(u) + square(v)) * square(4 + 2 * std::fabs(angle));
        e.mean_of(i)[a] = op.scale * (u * c - v * s);
        e.mean_of(i)[b] = op.scale * (u * s + v * c);
        e.variance_of(i)[a] = square(op.scale) * (uu * c * c + vv * s * s) + own;
        e.variance_of(i)[b] = square(op.scale) * (uu * s * s + vv * c * c) + own;
      }
  }
  return e;
}

void Definition::append(KvHistory& history, const StepRows& step, const Estimate& k, const Estimate& v) {
  for (size_t i = 0; i < k.rows.size(); ++i) {
    const auto position = static_cast<size_t>((*step.positions)[k.rows[i]]);
    if (position > history.positions.size())
      throw Error("internal error: position {} before those below it", position);
    history.positions.resize(position + 1);
    const size_t j = v.index(k.rows[i]);
    history.positions[position] = {{k.mean_of(i), k.mean_of(i) + k.width},
                                   {v.mean_of(j), v.mean_of(j) + v.width},
                                   {k.variance_of(i), k.variance_of(i) + k.width},
                                   {v.variance_of(j), v.variance_of(j) + v.width}};
  }
}

Estimate Definition::attention(const apr_op& op, const StepRows& step, const std::vector<uint32_t>& rows,
                               const Estimate& q, const KvHistory& kv) const {
  Estimate e = sized(op, rows);
  const uint32_t dim = op.head_dim, group = op.n_heads / op.n_kv_heads;
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto position = static_cast<uint64_t>((*step.positions)[rows[i]]);
    const uint64_t begin = op.window > 0 && position + 1 > op.window ? position + 1 - op.window : 0,
                   n = position + 1 - begin;
    const size_t from = q.index(rows[i]);
    for (uint32_t h = 0; h < op.n_heads; ++h) {
      const double *query = q.mean_of(from) + uint64_t{h} * dim,
                   *query_variance = q.variance_of(from) + uint64_t{h} * dim;
      const uint64_t at = uint64_t{h / group} * dim;
      std::vector<double> weight(n), deviation(n);
      double largest = -INFINITY, total = 0;
      for (uint64_t j = 0; j < n; ++j) {
        const KvHistory::Entry& entry = kv.positions.at(begin + j);
        double dot = 0, noise = 0;
        for (uint32_t d = 0; d < dim; ++d) {
          const double key = entry.k[at + d];
          dot += query[d] * key;
          noise += square(query[d]) * (entry.k_variance[at + d] + kF16 * square(key)) +
                   square(key) * (query_variance[d] + kF16 * square(query[d]));
        }
        weight[j] = op.scale * dot;
        deviation[j] = op.scale * std::sqrt(noise);
        largest = std::max(largest, weight[j]);
      }
      for (double& w : weight) w = std::exp(w - largest), total += w;
      double *out = e.mean_of(i) + uint64_t{h} * dim, *variance = e.variance_of(i) + uint64_t{h} * dim;
      for (uint64_t j = 0; j < n; ++j) {
        weight[j] /= total;
        for (uint32_t d = 0; d < dim; ++d) out[d] += weight[j] * kv.positions[begin + j].v[at + d];
      }
      for (uint32_t d = 0; d < dim; ++d) {
        // Scores share the query's noise, so theirs adds up in the worst way.
        double scores = 0, values = 0;
        for (uint64_t j = 0; j < n; ++j) {
          const KvHistory::Entry& entry = kv.positions[begin + j];
          scores += weight[j] * std::fabs(entry.v[at + d] - out[d]) * deviation[j];
          values += square(weight[j]) * (entry.v_variance[at + d] + 2 * kF16 * square(entry.v[at + d]));
        }
        variance[d] = square(scores) + values + square(4 * kFloat * out[d]);
      }
    }
  }
  return e;
}

Estimate Definition::add(const apr_op& op, const std::vector<uint32_t>& rows, const Estimate& a,
                         const Estimate& b) const {
  Estimate e = sized(op, rows);
  const Estimate* with_part = a.part.empty() ? &b : b.part.empty() ? &a : nullptr;
  if (with_part != nullptr && with_part->part.empty()) with_part = nullptr;
  if (with_part != nullptr) e.part.assign(e.mean.size(), 0.0);
  for (size_t i = 0; i < rows.size(); ++i) {
    const size_t x = a.index(rows[i]), y = b.index(rows[i]);
    for (uint32_t c = 0; c < e.width; ++c) {
      e.mean_of(i)[c] = a.mean_of(x)[c] + b.mean_of(y)[c];
      e.variance_of(i)[c] = a.variance_of(x)[c] + b.variance_of(y)[c] + square(kFloat * e.mean_of(i)[c]);
    }
    if (with_part == nullptr) continue;
    const size_t p = with_part == &a ? x : y;
    std::copy_n(with_part->part.data() + p * e.width, e.width, e.part.data() + i * e.width);
    e.part_noise.push_back(with_part->part_noise[p]);
  }
  return e;
}

Estimate Definition::swiglu(const apr_op& op, const std::vector<uint32_t>& rows, const Estimate& gate,
                            const Estimate& up) const {
  Estimate e = sized(op, rows);
  for (size_t i = 0; i < rows.size(); ++i) {
    const size_t x = gate.index(rows[i]), y = up.index(rows[i]);
    for (uint32_t c = 0; c < e.width; ++c) {
      const double g = gate.mean_of(x)[c], u = up.mean_of(y)[c], s = 1 / (1 + std::exp(-g));
      e.mean_of(i)[c] = g * s * u;
      e.variance_of(i)[c] = square(u * s * (1 + g * (1 - s))) * gate.variance_of(x)[c] +
                            square(g * s) * up.variance_of(y)[c] + square(8 * kFloat * e.mean_of(i)[c]);
    }
  }
  return e;
}

}  // namespace apr
