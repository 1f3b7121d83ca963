// `aprctl eval --compare`: several files of one model side by side, as a table and a picture.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "aprctl/eval_run.h"

namespace apr::ctl {

struct CompareOptions {
  std::vector<std::string> models;
  std::optional<std::string> plot;  // SVG to write
  uint32_t repetitions = 3;         // of the speed tests; 0: speed is not measured
  bool json = false;
};

// `request` without a model. Prints, and leaves no state behind.
void compare_models(const CommandLine& line, EvalRequest request, const CompareOptions& options);

}  // namespace apr::ctl
