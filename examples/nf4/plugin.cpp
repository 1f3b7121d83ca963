// The example.nf4 weight format: its codec, its quantiser, and the table that the program reads.
#include "apr/format.hpp"
#include "apr/quantize.hpp"
#include "codec.h"

APR_EMBED_TEXT(codec_text, "codec.h");

namespace {

constexpr apr::fit::Table<16> kValues{
    {-127, -88, -67, -50, -36, -23, -12, 0, 10, 20, 31, 43, 56, 71, 92, 127}};

struct Definition {
  using Codec = ExampleNf4;
  static constexpr const char* kName = "example.nf4";
  static constexpr const char* kDescription = "4.25 bits: blocks of 64, 4-bit NormalFloat and a scale";
  static constexpr const char* kCppType = "ExampleNf4";
  static constexpr const char* kSource = codec_text;
  static constexpr int kGgufType = -1;

  // The scale that errs least, not the greatest weight's as in the paper; then the nearest values for it.
  static void quantize(const float* x, const float* weight, uint8_t* block) {
    const float d = apr::fit::scale_only<64>(x, weight, kValues);
    float value[64];
    kValues.round<64>(x, weight, d, value);
    apr::store_half(block, d);
    const auto nibble = [&value](int column) {
      int n = 0;
      while (n < 15 && kValues.value[n] != value[column]) ++n;
      return n;
    };
    for (int i = 0; i < 32; ++i) block[2 + i] = static_cast<uint8_t>(nibble(2 * i) | nibble(2 * i + 1) << 4);
  }
};

constexpr const apr_quant_format* kFormats[] = {&apr::Format<Definition>::kTable};

}  // namespace

APR_PLUGIN_ENTRY = {sizeof(apr_plugin),
                    APR_ABI_MAJOR,
                    APR_ABI_MINOR,
                    "example.nf4",
                    "0.1.0",
                    "Apache-2.0",
                    kFormats,
                    1,
                    nullptr,
                    0};
