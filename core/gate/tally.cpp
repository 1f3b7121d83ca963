#include "core/gate/tally.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/base/thread_pool.h"
#include "core/compare/verdict.h"

namespace apr {

namespace {

// A stage's error as a whole is a sum of many roundings, few of which may be independent: four times their
// expected size is out of reach of chance, and a fault is tens of times that. One element is nearly normal:
// ten deviations. A factor is judged over all columns and positions: eight.
constexpr double kWhole = 4, kElement = 10, kFactor = 8;
// A fault is looked for in its own direction, where noise of all other directions does not hide it: half of it must
// be there, and the noise in that direction must be far from that.
constexpr double kHalf = 0.5, kDirectionNoise = 0.025;
constexpr double kFactorFloor = 1e-5;  // float32 sums of one sign lean this far

// Attention that is right up to one position and wrong from the next one on has met a faulty cache slot there.
std::string explain_slot(const apr_op& op, const Tally& t) {
  if (op.kind != APR_OP_ATTENTION || t.right.empty() || !t.right.begin()->second) return "";
  for (const auto& [position, right] : t.right) {
    if (right) continue;
    if (t.right.find(position - 1) == t.right.end()) return "";
    return fmt::format("right before position {0}, wrong from it on: KV slot {0} is stale or wrong",
                       position);
  }
  return "";
}

}  // namespace

bool is_rounding(double squared_difference, double variance) {
  return squared_difference <= kWhole * kWhole * variance;
}

StageVerdict conclude(Tally& t, const apr_op& op, ThreadPool& pool) {
  StageVerdict& v = t.verdict;
  const double size = std::max(t.ee, 1e-300);
  v.error = std::sqrt(t.dd / size);
  v.bound = kWhole * std::sqrt(t.vv / size);
  v.worst_deviations = t.worst;
  const bool whole = is_rounding(t.dd, t.vv), elements = t.worst <= kElement;
  bool wrong_factor = false, wrong_direction = false;
  if (t.has_part && t.part_part > 0) {
    v.factor = 1 + t.part_d / t.part_part;
    v.factor_bound = kFactor * std::sqrt(t.part_noise) / t.part_part + kFactorFloor;
    wrong_factor = std::fabs(v.factor - 1) > v.factor_bound;
  }
  for (const auto& [off, direction] : t.rope) {
    if (!(direction.aa > 0) || direction.da < kHalf * direction.aa) continue;
    const bool clear = std::sqrt(direction.noise) < kDirectionNoise * direction.aa;
    wrong_direction = wrong_direction || clear;
    if ((clear || !whole) && t.explanation.empty())
      t.explanation = fmt::format("q and k turned by the angles of another position: off by {:+}", off);
  }
  v.pass = !t.not_finite && whole && elements && !wrong_factor && !wrong_direction;
  if (v.pass) return v;
  if (t.explanation.empty()) t.explanation = explain_slot(op, t);
  if (!t.explanation.empty()) {
    v.looks_like = t.explanation;
    return v;
  }
  const Comparison c = compare(matrix_of(t.expected.data(), v.rows, t.columns),
                               matrix_of(t.got.data(), v.rows, t.columns), v.bound * v.bound, pool);
  if (whole && !elements)
    v.looks_like = fmt::format("single elements{}", c.where.empty() ? "" : ": " + c.where);
  else if (whole)
    v.looks_like = fmt::format("scaled by {:.5g}", v.factor);
  else
    v.looks_like = harmless(c.verdict) ? "more noise than rounding makes" : describe(c);
  return v;
}

}  // namespace apr
