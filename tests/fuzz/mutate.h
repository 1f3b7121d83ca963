// Damage to model files, by seed: the same seed gives the same file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "tests/fuzz/fields.h"

namespace apr_test {

// One to a few damages of random kinds: absurd or exchanged fields, flipped bytes of header or weights, hostile
// text, a cut, a piece moved elsewhere.
std::vector<std::byte> damaged(const std::vector<std::byte>& file, const Fields& fields, uint64_t seed);

// Calls visit with every field of the file set to every absurd value that its width holds, and with the file
// cut at every field. `step`: only every step-th of these.
void every_absurd_field(const std::vector<std::byte>& file, const Fields& fields, uint64_t step,
                        const std::function<void(const std::vector<std::byte>&)>& visit);

}  // namespace apr_test
