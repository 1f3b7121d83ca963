// What a plan's operations mean, in float64, together with how far a correct backend may be from it. An
// estimate is a mean and a variance: the variance starts at 0 where a backend has told a value, and each
// operation adds what it is allowed to round.
//
// What is allowed:
//   int8   a linear of an integer codec rounds its input to 8 bits in blocks of at most 32 columns (not in
//   precise sessions) f16    a linear's input and weights, keys, values and probabilities may go through
//   16-bit floats: tensor cores eat them float  everything else is float32
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <utility>
#include <vector>

#include "apr/plan.h"

namespace apr {

class ThreadPool;

// Some rows of a value.
struct Estimate {
  uint32_t width = 0;
  std::vector<uint32_t> rows;          // indices into the step's batch, ascending
  std::vector<double> mean, variance;  // [rows][width]
  // Of a linear (and of a sum with one): its part, and the variance of the sum of part * noise. They tell
  // whether the part as a whole is too large or too small, which each element alone is too noisy to show.
  std::vector<double> part;        // [rows][width], or empty
  std::vector<double> part_noise;  // [rows]

  size_t index(uint32_t row) const;  // of a batch row in `rows`; throws when it is not there
  double* mean_of(size_t i) { return mean.data() + i * width; }
  const double* mean_of(size_t i) const { return mean.data() + i * width; }
  double* variance_of(size_t i) { return variance.data() + i * width; }
  const double* variance_of(size_t i) const { return variance.data() + i * width; }
};

// Keys and values of one attention operation, by position.
struct KvHistory {
  struct Entry {
    std::vector<double> k, v, k_variance, v_variance;
  };
  std::vector<Entry> positions;
};

struct StepRows {
  const std::vector<int32_t>* tokens;
  const std::vector<int32_t>* positions;  // of one sequence
};

class Definition {
 public:
  // int8: linears of integer codecs may round their inputs to 8 bits.
  Definition(const apr_plan& plan, bool int8, ThreadPool& pool) : plan_(plan), int8_(int8), pool_(pool) {}

  // An estimate without uncertainty: what a backend reported. data [all rows of the step][width].
  static Estimate exact(const float* data, uint32_t n_rows, uint32_t width);

  // The output of an operation for some rows. inputs: one estimate for each of op.in (null: none), each
  // holding at least `rows`. columns: of a linear, the only ones that are computed (empty: all); the others
  // are left 0.
  Estimate evaluate(const apr_op& op, const StepRows& step, const std::vector<uint32_t>& rows,
                    const Estimate* const inputs[4], const std::vector<uint32_t>& columns,
                    const KvHistory* history) const;
  // Adds a step's keys and values to a history: all rows that the estimates hold, at their positions.
  static void append(KvHistory& history, const StepRows& step, const Estimate& k, const Estimate& v);

  // The same product with W read as if it were stored [K, N]: [rows][n columns], for the first of the rows.
  std::vector<double> transposed_linear(const apr_op& op, const Estimate& input, uint32_t row) const;

 private:
  Estimate embed(const apr_op& op, const StepRows& step, const std::vector<uint32_t>& rows) const;
  Estimate rms_norm(const apr_op& op, const std::vector<uint32_t>& rows, const Estimate& x) const;
  Estimate linear(const apr_op& op, const std::vector<uint32_t>& rows, const Estimate& x,
                  const std::vector<uint32_t>& columns) const;
  Estimate rope(const apr_op& op, const StepRows& step, const std::vector<uint32_t>& rows,
                const Estimate& x) const;
  Estimate attention(const apr_op& op, const StepRows& step, const std::vector<uint32_t>& rows,
                     const Estimate& q, const KvHistory& kv) const;
  Estimate add(const apr_op& op, const std::vector<uint32_t>& rows, const Estimate& a,
               const Estimate& b) const;
  Estimate swiglu(const apr_op& op, const std::vector<uint32_t>& rows, const Estimate& gate,
                  const Estimate& up) const;
  Estimate sized(const apr_op& op, const std::vector<uint32_t>& rows) const;

  const apr_plan& plan_;
  bool int8_;
  ThreadPool& pool_;
};

}  // namespace apr
