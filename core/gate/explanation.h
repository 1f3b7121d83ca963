// What a faulty stage's result looks like, told by trying the likely faults of its operation on one row: the one that
// explains the difference is named. "" where none does. A guess for the reader: verdicts do not depend on it.
#pragma once

#include <cstdint>
#include <string>

#include "core/gate/definition.h"

namespace apr {

// x: the stage's input, as reported; row: of the step; got [width]: what the backend made of it; dd: sum of the squared
// differences from what is right.

// Angles of another position, the other way round, or of pairs that are not the model's.
std::string explain_rope(const Definition& definition, const apr_op& op, const StepRows& step,
                         const Estimate& x, uint32_t row, const float* got, double dd);
// Another epsilon.
std::string explain_norm(const apr_plan& plan, const apr_op& op, const Estimate& x, uint32_t row,
                         const float* got);

}  // namespace apr
