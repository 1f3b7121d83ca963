// An evaluation's figures, for people and for programs.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "aprctl/eval_run.h"
#include "core/eval/summary.h"

namespace apr::ctl {

// "1.4288(61)": the digits in brackets are the standard error of the last ones. Without an error the value alone.
std::string with_error(const Estimate& estimate);

void print_eval(const EvalRequest& request, const EvalResult& result, const EvalSummary& summary);
nlohmann::ordered_json eval_json(const EvalRequest& request, const EvalResult& result,
                                 const EvalSummary& summary);

}  // namespace apr::ctl
