// Puts tokens through a session in the forms that are compared, through the waist alone. Sequence 0 is used.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/gate/parity.h"

namespace apr {

// What a step reported of itself.
struct TappedStep {
  std::vector<int32_t> tokens, positions;
  std::map<std::string, std::vector<float>, std::less<>>
      stages;  // [rows][width]; every token's logits were wanted
};

class Feeder {
 public:
  // tokens: at positions 0, 1, ...; not more than the session's n_batch.
  Feeder(const ParitySide& side, const apr_plan& plan, std::vector<int32_t> tokens);

  // Everything below throws apr::Error with the backend's message.
  // Logits of every token: [tokens][n_vocab].
  std::vector<float> run(ParityForm form);
  // Other tokens at the same positions: what a kernel fails to write holds theirs from now on, and no longer
  // what the same tokens left there before.
  void scramble();
  // Tokens first .. first + n in one step, with a tap.
  TappedStep tapped(uint32_t first, uint32_t n);

 private:
  void step(const int32_t* tokens, uint32_t first, uint32_t n, uint32_t flags, float* logits);

  ParitySide side_;
  const apr_plan& plan_;
  std::vector<int32_t> tokens_, positions_, sequences_;
  std::vector<uint8_t> want_;
};

}  // namespace apr
