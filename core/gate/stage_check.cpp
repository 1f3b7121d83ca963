#include "core/gate/stage_check.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <optional>
#include <set>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/base/thread_pool.h"
#include "core/gate/definition.h"
#include "core/gate/explanation.h"
#include "core/gate/feeder.h"
#include "core/gate/tally.h"

namespace apr {

namespace {

constexpr int32_t kRopeOffs[] = {1, -1};  // positions by which a fused kernel's rope may be off

// Ends are always among them: tails are where kernels go wrong.
std::vector<uint32_t> sampled(uint32_t width, uint32_t columns) {
  std::set<uint32_t> picked;
  if (columns == 0 || width <= columns) return {};
  for (uint32_t i = 0; i < columns / 4; ++i) picked.insert({i, width - 1 - i});
  for (uint32_t i = 0; picked.size() < columns; ++i)
    picked.insert(static_cast<uint32_t>((uint64_t{i} * 245489 + i / width) % width));
  return {picked.begin(), picked.end()};
}

class Checker {
 public:
  Checker(const apr_plan& plan, const StageCheckOptions& options)
      : plan_(plan),
        options_(options),
        definition_(plan, !options.precise, pool_),
        tallies_(plan.n_ops),
        histories_(plan.n_ops) {
    for (const int32_t off : kRopeOffs) moved_[off].resize(plan.n_ops);
  }

  void step(const TappedStep& step, const std::vector<uint32_t>& judged, ParityForm form) {
    step_ = &step;
    rows_ = {&step.tokens, &step.positions};
    plan_needs(judged);
    estimates_.assign(plan_.n_values, std::nullopt);
    for (uint32_t i = 0; i < plan_.n_ops; ++i) {
      if (needed_[i].empty()) continue;
      const apr_op& op = *plan_.ops[i];
      if (options_.progress && !judged.empty()) options_.progress(op.stage, i + 1, plan_.n_ops);
      if (op.kind == APR_OP_ATTENTION) append(i, op);
      if (needed_[i][0] != kHistoryOnly) evaluate(i, op, judged, form);
      release(i);
    }
  }

  std::vector<StageVerdict> finish() {
    std::vector<StageVerdict> verdicts;
    for (Tally& t : tallies_)
      if (t.verdict.rows > 0) verdicts.push_back(conclude(t, *plan_.ops[t.verdict.op], pool_));
    return verdicts;
  }

 private:
  static constexpr uint32_t kHistoryOnly = UINT32_MAX;

  uint32_t width(int32_t value) const { return plan_.values[value]->width; }
  bool reported(const apr_op& op) const { return step_->stages.contains(op.stage); }

  void evaluate(uint32_t i, const apr_op& op, const std::vector<uint32_t>& judged, ParityForm form) {
    const Estimate* inputs[4] = {};
    for (int slot = 0; slot < 4; ++slot)
      if (op.in[slot] >= 0) inputs[slot] = &input(op.in[slot]);
    const std::vector<uint32_t> columns = full_[static_cast<size_t>(op.out)]
                                              ? std::vector<uint32_t>()
                                              : sampled(width(op.out), options_.columns);
    Estimate estimate = definition_.evaluate(op, rows_, needed_[i], inputs, columns, &histories_[i]);
    if (reported(op))
      judge(i, estimate, columns, rows_to_judge(op, judged), form);
    else
      estimates_[static_cast<size_t>(op.out)] = std::move(estimate);
  }

  // Where positions matter and no weights do, all of them cost little, and tell from which one on it goes wrong.
  std::vector<uint32_t> rows_to_judge(const apr_op& op, const std::vector<uint32_t>& judged) const {
    bool all = !judged.empty() && (op.kind == APR_OP_ATTENTION || op.kind == APR_OP_ROPE);
    for (const int32_t in : op.in) all = all && (in < 0 || reported(producer(in)));
    if (!all) return judged;
    std::vector<uint32_t> rows(step_->tokens.size());
    std::iota(rows.begin(), rows.end(), 0u);
    return rows;
  }

  // Backwards: which rows of which operations must be computed, and whether all of their columns.
  void plan_needs(const std::vector<uint32_t>& judged) {
    const auto n = static_cast<uint32_t>(step_->tokens.size());
    std::vector<std::set<uint32_t>> wanted(plan_.n_values);
    full_.assign(plan_.n_values, false);
    needed_.assign(plan_.n_ops, {});
    last_reader_.assign(plan_.n_values, 0);
    for (uint32_t i = plan_.n_ops; i-- > 0;) {
      const apr_op& op = *plan_.ops[i];
      const auto out = static_cast<size_t>(op.out);
      const bool is_reported = reported(op), is_selected = !options_.selected || options_.selected(op);
      std::set<uint32_t> rows;
      if (is_reported && is_selected)
        for (const uint32_t row : rows_to_judge(op, judged)) rows.insert(row);
      if (!is_reported) rows.insert(wanted[out].begin(), wanted[out].end());
      const bool remembers = op.kind == APR_OP_ATTENTION && (is_selected || !rows.empty());
      if (rows.empty() && !remembers) continue;
      needed_[i] = rows.empty() ? std::vector<uint32_t>{kHistoryOnly}
                                : std::vector<uint32_t>(rows.begin(), rows.end());
      if (is_reported) full_[out] = false;
      for (int slot = 0; slot < 4; ++slot) {
        if (op.in[slot] < 0) continue;
        const auto in = static_cast<size_t>(op.in[slot]);
        last_reader_[in] = std::max(last_reader_[in], i);
        if (op.kind == APR_OP_ATTENTION && slot > 0)
          for (uint32_t r = 0; r < n; ++r) wanted[in].insert(r);
        else
          wanted[in].insert(rows.begin(), rows.end());
        const bool by_columns = op.kind == APR_OP_ADD || op.kind == APR_OP_SWIGLU;
        if (!by_columns || full_[out]) full_[in] = true;
      }
    }
  }

  const Estimate& input(int32_t value) {
    std::optional<Estimate>& e = estimates_[static_cast<size_t>(value)];
    if (!e) {
      const apr_op& made_by = producer(value);
      const auto found = step_->stages.find(made_by.stage);
      if (found == step_->stages.end())
        throw Error("internal error: stage {} was neither reported nor computed", made_by.stage);
      e = Definition::exact(found->second.data(), static_cast<uint32_t>(found->second.size() / width(value)),
                            width(value));
    }
    return *e;
  }

  const apr_op& producer(int32_t value) const { return *plan_.ops[producer_index(value)]; }
  uint32_t producer_index(int32_t value) const {
    for (uint32_t i = 0; i < plan_.n_ops; ++i)
      if (plan_.ops[i]->out == value) return i;
    throw Error("internal error: value {} has no producer", value);
  }

  void release(uint32_t op) {
    for (const int32_t in : plan_.ops[op]->in)
      if (in >= 0 && last_reader_[static_cast<size_t>(in)] <= op) estimates_[static_cast<size_t>(in)].reset();
  }

  // The operations between reported stages and this one.
  void collect_group(uint32_t i, std::set<uint32_t>& group) const {
    group.insert(i);
    for (const int32_t in : plan_.ops[i]->in)
      if (in >= 0)
        if (const uint32_t p = producer_index(in); !reported(*plan_.ops[p]) && !group.contains(p))
          collect_group(p, group);
  }

  void describe_group(uint32_t i, StageVerdict& v) const {
    if (!v.group.empty()) return;
    std::set<uint32_t> group;
    collect_group(i, group);
    for (const uint32_t member : group) {
      const apr_op& op = *plan_.ops[member];
      v.group.emplace_back(op.stage);
      if (op.weight[0] < 0) continue;
      const apr_weight& w = *plan_.weights[op.weight[0]];
      v.weight += (v.weight.empty() ? "" : " + ") + std::string(w.name);
      if (v.format.find(w.format->name) == std::string::npos)
        v.format += (v.format.empty() ? "" : " + ") + std::string(w.format->name);
    }
  }

  void judge(uint32_t i, const Estimate& e, const std::vector<uint32_t>& some,
             const std::vector<uint32_t>& judged, ParityForm form) {
    const apr_op& op = *plan_.ops[i];
    if (options_.selected && !options_.selected(op)) return;
    Tally& t = tallies_[i];
    StageVerdict& v = t.verdict;
    v.stage = op.stage, v.op = i, v.form = form;
    describe_group(i, v);
    const std::vector<float>& data = step_->stages.at(op.stage);
    const uint32_t n = e.width;
    t.columns = some.empty() ? n : static_cast<uint32_t>(some.size());
    for (const uint32_t row : judged) {
      const size_t at = e.index(row);
      const float* got = data.data() + uint64_t{row} * n;
      double scale = 0;
      for (uint32_t c = 0; c < t.columns; ++c)
        scale = std::max(scale, std::fabs(e.mean_of(at)[some.empty() ? c : some[c]]));
      double dd = 0, vv = 0;
      for (uint32_t c = 0; c < t.columns; ++c) {
        const uint32_t column = some.empty() ? c : some[c];
        const double expected = e.mean_of(at)[column], d = got[column] - expected;
        // The result is stored as float32; and next to nothing is nothing beside the row's largest element.
        const double variance =
            e.variance_of(at)[column] + 0x1p-46 * expected * expected + 1e-14 * scale * scale;
        t.expected.push_back(static_cast<float>(expected));
        t.got.push_back(got[column]);
        double deviations = variance > 0 ? std::fabs(d) / std::sqrt(variance) : d == 0 ? 0 : INFINITY;
        if (!std::isfinite(got[column])) t.not_finite = true, deviations = INFINITY;
        if (deviations > t.worst) {
          t.worst = deviations;
          v.worst_position = step_->positions[row], v.worst_column = column, v.worst_expected = expected,
          v.worst_got = got[column];
        }
        if (!std::isfinite(d)) continue;
        dd += d * d, vv += variance, t.ee += expected * expected;
        if (!e.part.empty()) {
          const double part = e.part[at * n + column];
          t.part_d += d * part, t.part_part += part * part;
        }
      }
      t.dd += dd, t.vv += vv;
      if (!e.part.empty()) t.has_part = true, t.part_noise += e.part_noise[at];
      ++v.rows;
      look_for_rope(i, e, row, got, some, t);
      const bool right = is_rounding(dd, vv);
      t.right[step_->positions[row]] = right;
      if (!right && some.empty() && t.explanation.empty()) t.explanation = explain(i, row, got, dd);
    }
  }

  std::string explain(uint32_t i, uint32_t row, const float* got, double dd) {
    const apr_op& op = *plan_.ops[i];
    // An input that was computed and not reported may be gone already.
    const bool there =
        op.in[0] >= 0 && (estimates_[static_cast<size_t>(op.in[0])] || reported(producer(op.in[0])));
    if (there && op.kind == APR_OP_ROPE)
      return explain_rope(definition_, op, rows_, input(op.in[0]), row, got, dd);
    if (there && op.kind == APR_OP_RMS_NORM) return explain_norm(plan_, op, input(op.in[0]), row, got);
    return looks_transposed(i, row, got, dd) ? "W read as if it were stored [K, N]: transposed" : "";
  }

  // A fused kernel turns q and k and keeps them to itself. Of one token: what would come out if its angles were those
  // of the next position, or the one before?
  void look_for_rope(uint32_t i, const Estimate& e, uint32_t row, const float* got,
                     const std::vector<uint32_t>& some, Tally& t) {
    std::set<uint32_t> group;
    collect_group(i, group);
    const bool turns = group.size() > 1 && std::any_of(group.begin(), group.end(), [&](uint32_t member) {
                         return plan_.ops[member]->kind == APR_OP_ROPE;
                       });
    if (!turns || step_->tokens.size() != 1) return;
    for (const int32_t off : kRopeOffs) {
      const Estimate moved = with_rope_off(i, off, some);
      Tally::Direction& direction = t.rope[off];
      for (uint32_t c = 0; c < t.columns; ++c) {
        const uint32_t column = some.empty() ? c : some[c];
        const double right = e.mean_of(e.index(row))[column], a = moved.mean[column] - right;
        direction.da += (got[column] - right) * a, direction.aa += a * a;
        direction.noise += a * a * e.variance_of(e.index(row))[column];
      }
    }
  }

  // An operation's result of a step of one token with all its group's ropes `off` positions wrong.
  Estimate with_rope_off(uint32_t i, int32_t off, const std::vector<uint32_t>& columns) {
    const apr_op& op = *plan_.ops[i];
    const bool by_columns = op.kind == APR_OP_ADD || op.kind == APR_OP_SWIGLU;
    Estimate made[4];
    const Estimate* inputs[4] = {};
    for (int slot = 0; slot < 4; ++slot) {
      // Keys and values are in the history.
      if (op.in[slot] < 0 || (op.kind == APR_OP_ATTENTION && slot > 0)) continue;
      const uint32_t from = producer_index(op.in[slot]);
      inputs[slot] = &made[slot];
      if (reported(*plan_.ops[from]))
        inputs[slot] = &input(op.in[slot]);
      else
        made[slot] = with_rope_off(from, off, by_columns ? columns : std::vector<uint32_t>());
    }
    const std::vector<int32_t> positions = {step_->positions[0] + off};
    const StepRows other = {&step_->tokens, &positions};
    return definition_.evaluate(op, op.kind == APR_OP_ROPE ? other : rows_, {0}, inputs, columns,
                                &moved_[off][i]);
  }

  // Keys and values of this step, as they are and as they would be if a fused kernel's angles were wrong.
  void append(uint32_t i, const apr_op& op) {
    Definition::append(histories_[i], rows_, input(op.in[1]), input(op.in[2]));
    const uint32_t key = producer_index(op.in[1]);
    const bool fused = step_->tokens.size() == 1 && !reported(*plan_.ops[key]);
    for (const int32_t off : kRopeOffs) {
      KvHistory& history = moved_[off][i];
      if (fused)
        Definition::append(history, rows_, with_rope_off(key, off, {}), input(op.in[2]));
      else
        Definition::append(history, rows_, input(op.in[1]), input(op.in[2]));
    }
  }

  // Does the product with W read as [K, N] explain the result better?
  bool looks_transposed(uint32_t i, uint32_t row, const float* got, double dd) {
    const apr_op* op = plan_.ops[i];
    std::vector<double> other(width(op->out), 0.0);
    if (op->kind == APR_OP_ADD) {
      const apr_op *a = &producer(op->in[0]), *b = &producer(op->in[1]);
      if (b->kind != APR_OP_LINEAR || reported(*b)) std::swap(a, b);
      if (b->kind != APR_OP_LINEAR || reported(*b)) return false;
      const Estimate& sum = input(a->out);
      std::copy_n(sum.mean_of(sum.index(row)), other.size(), other.begin());
      op = b;
    }
    if (op->kind != APR_OP_LINEAR) return false;
    const int32_t in = op->in[0];
    // Its own input may be gone already, when it was computed and not reported.
    if (!estimates_[static_cast<size_t>(in)] && !reported(producer(in))) return false;
    const std::vector<double> y = definition_.transposed_linear(*op, input(in), row);
    double left = 0;
    for (size_t c = 0; c < y.size(); ++c) left += (got[c] - y[c] - other[c]) * (got[c] - y[c] - other[c]);
    return left < 0.01 * dd;
  }

  const apr_plan& plan_;
  const StageCheckOptions& options_;
  ThreadPool pool_;
  Definition definition_;
  std::vector<Tally> tallies_;                       // by operation
  std::vector<KvHistory> histories_;                 // by operation
  std::map<int32_t, std::vector<KvHistory>> moved_;  // the same with keys of fused kernels turned wrong
  const TappedStep* step_ = nullptr;
  StepRows rows_{};
  std::vector<std::vector<uint32_t>> needed_;       // by operation
  std::vector<bool> full_;                          // by value
  std::vector<uint32_t> last_reader_;               // by value
  std::vector<std::optional<Estimate>> estimates_;  // by value
};

// Evenly spread over [first, n), the last one always among them.
std::vector<uint32_t> spread(uint32_t first, uint32_t n, uint32_t count) {
  std::set<uint32_t> picked;
  for (uint32_t i = 0; i < count; ++i)
    picked.insert(n - 1 - static_cast<uint32_t>(uint64_t{i} * (n - first) / count));
  return {picked.begin(), picked.end()};
}

}  // namespace

std::function<bool(const apr_op&)> representative_stages(const apr_plan& plan) {
  std::map<int32_t, std::string> kinds;
  for (uint32_t i = 0; i < plan.n_ops; ++i) {
    const apr_op& op = *plan.ops[i];
    std::string& kind = kinds[op.layer];
    kind += fmt::format("{}/{}/{} ", static_cast<int>(op.kind), plan.values[op.out]->width, op.window);
    if (op.weight[0] >= 0) kind += plan.weights[op.weight[0]]->format->name;
  }
  std::set<std::string> seen;
  std::set<int32_t> layers;
  for (const auto& [layer, kind] : kinds)
    if (layer < 0 || seen.insert(kind).second || layer == static_cast<int32_t>(plan.n_layers) - 1)
      layers.insert(layer);
  return [layers](const apr_op& op) { return layers.contains(op.layer); };
}

std::vector<StageVerdict> check_stages(const ParitySide& side, const apr_plan& plan,
                                       const std::vector<int32_t>& tokens, ParityForm form,
                                       const StageCheckOptions& options) {
  Feeder feeder(side, plan, tokens);
  Checker checker(plan, options);
  const auto n = static_cast<uint32_t>(tokens.size());
  feeder.scramble();
  switch (form) {
    case ParityForm::Prefill:
      checker.step(feeder.tapped(0, n), spread(0, n, options.positions), form);
      return checker.finish();
    case ParityForm::Mixed: {
      const uint32_t half = n / 2;
      const std::vector<uint32_t> judged = spread(half, n, options.positions);
      if (half > 0) checker.step(feeder.tapped(0, half), {}, form);
      for (uint32_t i = half; i < n; ++i)
        checker.step(feeder.tapped(i, 1),
                     std::binary_search(judged.begin(), judged.end(), i) ? std::vector<uint32_t>{0}
                                                                         : std::vector<uint32_t>(),
                     form);
      return checker.finish();
    }
    case ParityForm::Few:
    case ParityForm::SingleEager:
    case ParityForm::SingleGraph:
      break;
  }
  throw Error("internal error: stages are not judged in form {}", to_string(form));
}

const StageVerdict* first_failure(const std::vector<StageVerdict>& stages) {
  const auto found =
      std::find_if(stages.begin(), stages.end(), [](const StageVerdict& v) { return !v.pass; });
  return found == stages.end() ? nullptr : &*found;
}

std::vector<std::string> unseen_stages(const apr_plan& plan, const std::vector<StageVerdict>& stages) {
  std::set<std::string> seen;
  for (const StageVerdict& v : stages) seen.insert(v.stage);
  std::vector<std::string> unseen;
  for (uint32_t i = 0; i < plan.n_ops; ++i)
    if (!seen.contains(plan.ops[i]->stage)) unseen.emplace_back(plan.ops[i]->stage);
  return unseen;
}

std::string describe(const StageVerdict& v) {
  const std::string what = v.format.empty() ? v.stage : fmt::format("{} ({})", v.stage, v.format);
  if (v.pass)
    return fmt::format("{} is what its inputs make it: {:.2g} off, {:.2g} allowed", what, v.error, v.bound);
  return fmt::format("{} is not what its inputs make it: {:.2g} off where {:.2g} is rounding; looks like: {}",
                     what, v.error, v.bound, v.looks_like);
}

}  // namespace apr
