// The inverse frequencies of a rotary embedding, with every kind of long-context scaling already in them, so
// that a backend knows one formula only: angle = position * inverse_frequency[i].
#pragma once

#include <span>
#include <vector>

#include "core/plan/hyper.h"

namespace apr {

struct RopeTable {
  std::vector<float> inverse_frequencies;  // [dims / 2], computed in double
  float scale;                             // of the rotated pairs (yarn's mscale), 1 without scaling
};

// factors [dims / 2]: what each frequency is divided by (the tensor rope_freqs of Llama 3); empty: none.
RopeTable rope_table(const RopeParameters& rope, std::span<const float> factors);

}  // namespace apr
