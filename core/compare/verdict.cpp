#include "core/compare/verdict.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <mutex>
#include <random>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/base/thread_pool.h"

namespace apr {

Matrix matrix_of(const float* data, uint64_t rows, uint64_t cols) {
  return {rows, cols, [=](uint64_t first, uint64_t count, float* out) {
            std::memcpy(out, data + first * cols, count * cols * sizeof(float));
          }};
}

const char* to_string(Verdict verdict) {
  switch (verdict) {
    case Verdict::Identical:
      return "identical";
    case Verdict::Rounding:
      return "rounding";
    case Verdict::Scaled:
      return "scaled";
    case Verdict::SignFlipped:
      return "sign-flipped";
    case Verdict::Transposed:
      return "transposed";
    case Verdict::Shifted:
      return "shifted";
    case Verdict::NotFinite:
      return "not finite";
    case Verdict::Different:
      return "different";
  }
  return "?";
}

namespace {

// A hypothesis holds when it explains all but this share of the energy: 8-bit or 4-bit packing on top of it
// leaves less.
constexpr double kExplained = 0.10;
// ... and leaves much less than no explanation does: numbers that are nearly alike resemble each other in any
// order.
constexpr double kBetter = 0.25;
// A difference is a pure factor when no more than this share of its energy is left beside it.
constexpr double kPureFactor = 0.02;
constexpr uint64_t kPieceFloats = 64 << 10;  // 256 KiB a side: a core's cache

uint64_t piece_rows(const Matrix& m) {
  return std::clamp<uint64_t>(kPieceFloats / std::max<uint64_t>(m.cols, 1), 1, m.rows);
}

Measure measure_all(const Matrix& a, const Matrix& b, ThreadPool& pool) {
  Measure total;
  std::mutex mutex;
  const uint64_t step = piece_rows(a);
  pool.parallel_for((a.rows + step - 1) / step, 1, [&](size_t begin, size_t end) {
    std::vector<float> x(step * a.cols), y(x.size());
    Measure part;
    for (size_t piece = begin; piece < end; ++piece) {
      const uint64_t first = piece * step, count = std::min(step, a.rows - first);
      a.read(first, count, x.data());
      b.read(first, count, y.data());
      part.add(x.data(), y.data(), count * a.cols, first * a.cols);
    }
    const std::lock_guard lock(mutex);
    total.merge(part);
  });
  return total;
}

// sum (b - a)^2 / sum b^2 over pairs that `pick` names: what is left when b is explained by a's element at
// another place.
struct Left {
  double dd = 0, bb = 0;
  void add(double a, double b) { dd += (b - a) * (b - a), bb += b * b; }
  double share() const { return bb > 0 ? dd / bb : 1; }
};

// Elements at random places. Every one costs a row on each side, so a few hundred of them: a matrix that is
// explained by another reading of it agrees at nearly all.
bool is_transposed(const Matrix& a, const Matrix& b, double most) {
  if (a.rows < 2 || a.cols < 2) return false;
  std::mt19937_64 random(1);
  std::vector<float> row(a.cols), from(a.cols);
  Left left;
  for (int sample = 0; sample < 16; ++sample) {
    const uint64_t r = random() % b.rows;
    b.read(r, 1, row.data());
    for (int element = 0; element < 24; ++element) {
      const uint64_t c = random() % b.cols;
      const uint64_t at = c * a.rows + r;  // of a stored by columns
      a.read(at / a.cols, 1, from.data());
      left.add(from[at % a.cols], row[c]);
    }
  }
  return left.share() < most;
}

bool is_shifted(const Matrix& a, const Matrix& b, double most, Comparison& found) {
  constexpr std::array<int64_t, 9> kRows = {1, 2, 3, 4, 8, 16, 32, 64, 128};
  constexpr std::array<int64_t, 10> kColumns = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512};
  std::mt19937_64 random(2);
  std::vector<uint64_t> samples;
  for (int i = 0; i < 16; ++i) samples.push_back(random() % b.rows);
  std::vector<float> x(a.cols), y(b.cols);
  const auto rows_shifted_by = [&](int64_t shift) {
    Left left;
    for (const uint64_t r : samples) {
      const int64_t from = static_cast<int64_t>(r) - shift;
      if (from < 0 || from >= static_cast<int64_t>(a.rows)) continue;
      a.read(static_cast<uint64_t>(from), 1, x.data());
      b.read(r, 1, y.data());
      for (uint64_t c = 0; c < b.cols; ++c) left.add(x[c], y[c]);
    }
    return left.share();
  };
  const auto columns_shifted_by = [&](int64_t shift) {
    Left left;
    for (const uint64_t r : samples) {
      a.read(r, 1, x.data());
      b.read(r, 1, y.data());
      for (int64_t c = 0; c < static_cast<int64_t>(b.cols); ++c)
        if (const int64_t from = c - shift; from >= 0 && from < static_cast<int64_t>(a.cols))
          left.add(x[static_cast<size_t>(from)], y[static_cast<size_t>(c)]);
    }
    return left.share();
  };
  for (const int64_t step : kRows)
    for (const int64_t shift : {step, -step})
      if (step < static_cast<int64_t>(a.rows) && rows_shifted_by(shift) < most)
        return found.row_shift = shift, true;
  for (const int64_t step : kColumns)
    for (const int64_t shift : {step, -step})
      if (2 * step <= static_cast<int64_t>(a.cols) && columns_shifted_by(shift) < most)
        return found.column_shift = shift, true;
  return false;
}

// "0, 5, 6"; all of them when there are few.
std::string listed(const std::vector<uint64_t>& items) {
  constexpr size_t kShown = 8;
  const std::vector<uint64_t> first(
      items.begin(), items.begin() + static_cast<std::ptrdiff_t>(std::min(items.size(), kShown)));
  return joined(first) + (items.size() > kShown ? ", ..." : "");
}

// Of `energy`, the entries that hold nearly all of it, when they are few enough to be worth naming.
std::vector<uint64_t> few_of(const std::vector<double>& energy) {
  double total = 0;
  for (const double e : energy) total += e;
  std::vector<uint64_t> kept;
  double held = 0;
  for (uint64_t i = 0; i < energy.size(); ++i)
    if (energy[i] > total / static_cast<double>(energy.size()) / 4) kept.push_back(i), held += energy[i];
  if (total == 0 || held < 0.99 * total || 2 * kept.size() > energy.size()) return {};
  return kept;
}

// Whether a difference is confined to some rows, to a tail, or to some columns of every block.
std::string find_place(const Matrix& a, const Matrix& b) {
  // A large matrix is looked at in whole rows, evenly spread, its ends among them.
  constexpr uint64_t kMostRows = 4096;
  const uint64_t n = std::min(a.rows, kMostRows);
  std::vector<double> by_row(n), by_column(a.cols);
  std::vector<float> x(a.cols), y(a.cols);
  for (uint64_t i = 0; i < n; ++i) {
    const uint64_t r = n == 1 ? 0 : i * (a.rows - 1) / (n - 1);
    a.read(r, 1, x.data());
    b.read(r, 1, y.data());
    for (uint64_t c = 0; c < a.cols; ++c) {
      const double d = static_cast<double>(y[c]) - x[c], e = std::isfinite(d) ? d * d : 1e30;
      by_row[i] += e, by_column[c] += e;
    }
  }
  const auto tail_of = [](const std::vector<uint64_t>& items, uint64_t end) {
    return items.size() > 1 && items.back() + 1 == end && items.back() - items.front() + 1 == items.size();
  };
  if (const auto columns = few_of(by_column); !columns.empty()) {
    if (columns.size() == 1) return fmt::format("column {} of {} only", columns[0], a.cols);
    if (tail_of(columns, a.cols))
      return fmt::format("columns from {} on only (of {})", columns.front(), a.cols);
    // The period that needs the smallest share of its columns; of equals the shortest.
    uint64_t best_period = 0;
    std::vector<uint64_t> best;
    for (const uint64_t period : {16, 32, 64, 128, 256}) {
      if (a.cols < 2 * period) break;
      std::vector<double> folded(period);
      for (uint64_t c = 0; c < a.cols; ++c) folded[c % period] += by_column[c];
      const auto residues = few_of(folded);
      if (!residues.empty() && (best.empty() || residues.size() * best_period < best.size() * period))
        best = residues, best_period = period;
    }
    if (!best.empty()) return fmt::format("columns with c % {} = {} only", best_period, listed(best));
    return fmt::format("columns {} only (of {})", listed(columns), a.cols);
  }
  if (n == a.rows)
    if (const auto rows = few_of(by_row); !rows.empty()) {
      if (tail_of(rows, a.rows)) return fmt::format("rows from {} on only (of {})", rows.front(), a.rows);
      return fmt::format("row{} {} only (of {})", rows.size() == 1 ? "" : "s", listed(rows), a.rows);
    }
  return "";
}

}  // namespace

Comparison compare(const Matrix& a, const Matrix& b, double bound, ThreadPool& pool) {
  if (a.rows != b.rows || a.cols != b.cols)
    throw Error("shapes differ: [{}, {}] and [{}, {}]", a.rows, a.cols, b.rows, b.cols);
  Comparison result;
  result.bound = bound;
  const Measure& m = result.measure = measure_all(a, b, pool);
  if (m.identical()) return result;
  if (m.not_finite > 0) {
    result.verdict = Verdict::NotFinite;
    result.where = find_place(a, b);
    return result;
  }
  // A factor first: it is a fault however small it is, when next to nothing is left beside it. Few numbers
  // have a best factor by chance, so some are asked for.
  const double factor = m.scale(), left = m.unscaled() * m.sum_bb;
  if (m.n >= 8 && m.sum_aa > 0 && m.sum_bb > 0 && left <= kPureFactor * m.sum_dd) {
    result.factor = factor;
    result.verdict = factor < 0 ? Verdict::SignFlipped : Verdict::Scaled;
    return result;
  }
  if (m.nmse() <= bound) {
    result.verdict = Verdict::Rounding;
    return result;
  }
  const double most = std::min(kExplained, m.sum_bb > 0 ? kBetter * m.sum_dd / m.sum_bb : 0);
  if (m.n >= 8 && m.unscaled() < most) {
    result.factor = factor;
    result.verdict = factor < 0 ? Verdict::SignFlipped : Verdict::Scaled;
  } else if (is_transposed(a, b, most)) {
    result.verdict = Verdict::Transposed;
  } else if (is_shifted(a, b, most, result)) {
    result.verdict = Verdict::Shifted;
  } else {
    result.verdict = Verdict::Different;
    result.where = find_place(a, b);
  }
  return result;
}

std::string describe(const Comparison& c) {
  std::string text = to_string(c.verdict);
  switch (c.verdict) {
    case Verdict::Identical:
    case Verdict::Rounding:
    case Verdict::Transposed:
      break;
    case Verdict::Scaled:
      text += fmt::format(" by {:.6g}", c.factor);
      break;
    case Verdict::SignFlipped:
      if (std::fabs(c.factor + 1) > 1e-3) text += fmt::format(" and scaled by {:.6g}", -c.factor);
      break;
    case Verdict::Shifted:
      text += c.row_shift != 0
                  ? fmt::format(" by {} row{}", c.row_shift, std::abs(c.row_shift) == 1 ? "" : "s")
                  : fmt::format(" by {} column{}", c.column_shift, std::abs(c.column_shift) == 1 ? "" : "s");
      break;
    case Verdict::NotFinite:
    case Verdict::Different:
      break;
  }
  return c.where.empty() ? text : text + ": " + c.where;
}

}  // namespace apr
