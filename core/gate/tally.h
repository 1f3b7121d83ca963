// What was judged of one stage over all steps, and what follows from it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "apr/plan.h"
#include "core/gate/parity.h"

namespace apr {

class ThreadPool;

// d: got - expected; "variance" is what rounding may make of an element.
struct Tally {
  double dd = 0, ee = 0, vv = 0;                     // sums of d^2, expected^2, variance
  double part_d = 0, part_part = 0, part_noise = 0;  // of a linear's part (Estimate::part)
  bool has_part = false, not_finite = false;
  double worst = 0;         // largest |d|, in deviations
  std::string explanation;  // of the first faulty row
  struct Direction {
    double da = 0, aa = 0, noise = 0;  // sums of d a, a^2, a^2 variance: a is what the fault would add
  };
  std::map<int32_t, Direction> rope;  // by how many positions a fused kernel's angles are off
  std::map<int32_t, bool> right;      // by position: whether its row is
  StageVerdict verdict;
  std::vector<float> expected, got;  // [rows][columns that were judged]
  uint32_t columns = 0;
};

// Whether a row's squared difference is what roundings of that variance make.
bool is_rounding(double squared_difference, double variance);

// The verdict, completed. op: the stage's.
StageVerdict conclude(Tally& tally, const apr_op& op, ThreadPool& pool);

}  // namespace apr
