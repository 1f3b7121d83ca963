// What an interrupted evaluation has so far, on disk: the scores of whole windows. Written beside its name and renamed, so that
// it is whole or absent; a file of another evaluation (other key), or a damaged one, is never used.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/eval/score.h"

namespace apr {

struct EvalState {
  uint64_t windows_done = 0;
  std::vector<TokenScore> scores;  // windows_done * predictions in a window
};

// key: of all that the scores depend on (sha256, hex). Throws apr::Error that names the file when it cannot be written.
void write_eval_state(const std::string& path, const std::string& key, const EvalState& state);
// An empty state when there is no such file, or when `why` says why the one there is not used.
EvalState read_eval_state(const std::string& path, const std::string& key, uint32_t scored_per_window,
                          std::string& why);

}  // namespace apr
