// What a difference between two matrices of one shape looks like. The verdict is a description, found by
// trying the likely explanations: it says where to look first.
#pragma once

#include <cstdint>
#include <string>

#include "core/compare/matrix.h"
#include "core/compare/measure.h"

namespace apr {

class ThreadPool;

enum class Verdict {
  Identical,    // the same bits
  Rounding,     // within the bound, and without structure
  Scaled,       // a constant factor explains the difference
  SignFlipped,  // a negative one does
  Transposed,   // b is a, read as if it were stored [cols][rows]
  Shifted,      // b is a, moved by some rows or columns
  NotFinite,    // a NaN or an infinity on one side
  Different,    // none of these
};
const char* to_string(Verdict verdict);
// Nothing that needs an explanation.
inline bool harmless(Verdict verdict) {
  return verdict == Verdict::Identical || verdict == Verdict::Rounding;
}

struct Comparison {
  Verdict verdict = Verdict::Identical;
  Measure measure;
  double bound = 0;          // on nmse, for Rounding
  double factor = 1;         // Scaled, SignFlipped: b = factor * a
  int64_t row_shift = 0;     // Shifted: row r of b is row r - row_shift of a
  int64_t column_shift = 0;  // Shifted: column c of b is column c - column_shift of a
  std::string
      where;  // where the difference is, when it is not everywhere: "columns c % 32 = 5", "rows from 480 on"
};

// Reads both matrices once, and parts of them again to look for an explanation. `bound` is the nmse up to
// which a difference without structure counts as rounding. Shapes must be equal (apr::Error otherwise).
Comparison compare(const Matrix& a, const Matrix& b, double bound, ThreadPool& pool);

// "scaled by 0.0625", "shifted by 1 row", "different: columns c % 32 = 5 only".
std::string describe(const Comparison& comparison);

}  // namespace apr
