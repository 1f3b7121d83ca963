// Computes a plan in double precision, one operation after the other, straight from the comments of
// include/apr/plan.h. Slow and simple: it says what a plan means.
#pragma once

#include <cstdint>
#include <vector>

#include "apr/plan.h"

namespace apr::test {

// One sequence from position 0. Returns the logits of every token: [tokens][vocab].
std::vector<double> interpret(const apr_plan& plan, const std::vector<int32_t>& tokens);

}  // namespace apr::test
