#include "core/gate/explanation.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace apr {

namespace {
// Of a difference's energy, what may be left when it is explained.
constexpr double kLeft = 0.01;
}  // namespace

std::string explain_rope(const Definition& definition, const apr_op& op, const StepRows& step,
                         const Estimate& x, uint32_t row, const float* got, double dd) {
  const auto explains = [&](const apr_op& as, int32_t position) {
    std::vector<int32_t> positions = *step.positions;
    positions[row] = position;
    const Estimate* inputs[4] = {&x};
    const Estimate e = definition.evaluate(as, {step.tokens, &positions}, {row}, inputs, {}, nullptr);
    double left = 0;
    for (uint32_t c = 0; c < e.width; ++c) left += (got[c] - e.mean[c]) * (got[c] - e.mean[c]);
    return left < kLeft * dd;
  };
  const int32_t position = (*step.positions)[row];
  for (const int32_t off : {1, -1, 2, -2})
    if (explains(op, position + off))
      return fmt::format("turned by the angles of position {} at position {}: off by {:+}", position + off,
                         position, off);
  if (explains(op, -position)) return "turned the other way round: the sine's sign";
  apr_op other = op;
  other.rope = op.rope == APR_ROPE_ADJACENT ? APR_ROPE_HALVES : APR_ROPE_ADJACENT;
  if (explains(other, position))
    return op.rope == APR_ROPE_ADJACENT
               ? "columns i and i + half turned together; the model's pairs are adjacent"
               : "adjacent columns turned together; the model's pairs are i and i + half";
  return "";
}

std::string explain_norm(const apr_plan& plan, const apr_op& op, const Estimate& x, uint32_t row,
                         const float* got) {
  const float* weight = plan.vectors[op.vector[0]]->data;
  const double* in = x.mean_of(x.index(row));
  double least = INFINITY, most = 0;
  for (uint32_t h = 0; h < op.n_heads; ++h, in += op.head_dim, got += op.head_dim) {
    double dot = 0, size = 0, squares = 0, energy = 0;
    for (uint32_t c = 0; c < op.head_dim; ++c) {
      const double w = in[c] * weight[c];
      dot += got[c] * w, size += w * w, squares += in[c] * in[c],
          energy += static_cast<double>(got[c]) * got[c];
    }
    if (!(size > 0) || !(dot > 0)) return "";
    // A pure factor: what else is in it is rounding.
    const double factor = dot / size, left = energy - factor * dot;
    if (left > 1e-9 * energy) return "";
    const double epsilon = 1 / (factor * factor) - squares / op.head_dim;
    least = std::min(least, epsilon), most = std::max(most, epsilon);
  }
  if (least <= 0 || most > 1.1 * least) return "";
  return fmt::format("epsilon {:.1e} instead of {:.1e}", (least + most) / 2, op.eps);
}

}  // namespace apr
