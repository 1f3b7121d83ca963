// The parity gate as the program uses it: which prompt, which reference, when a receipt is enough.
#pragma once

#include <string>

#include "aprctl/engine.h"
#include "core/gate/parity.h"

namespace apr::ctl {

class Side;

// The gate's own prompt, cut to what the session takes.
std::vector<int32_t> gate_tokens(const Engine& engine);

// Compares the engine's session with another side: logits in every form, then the engine's stages by their own inputs.
ParityReport compare_sides(Engine& engine, Side& reference, const std::vector<int32_t>& tokens);

// Compares the engine's session with the reference backend on a real prompt, whatever receipts say.
ParityReport compare_with_reference(Engine& engine);

// Before a device's first answer: nothing for the reference itself; a receipt or a comparison for others. Returns the verdict
// for reports. Throws apr::Error of kind Gate when the device computes something else.
std::string gate_before_use(Engine& engine);

}  // namespace apr::ctl
