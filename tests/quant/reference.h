// The well-known formats written down a second time, as plainly as their public definition has them and
// without the codecs: what dequantize must agree with bit for bit.
#pragma once

#include <cstdint>
#include <string>

namespace apr::test {

// One block of a file to its columns, in float32 with every operation rounded.
using ReferenceBlock = void (*)(const uint8_t* block, float* w);

// Null for a name that is no well-known format.
ReferenceBlock reference(const std::string& format_name);

}  // namespace apr::test
