// The example.int3 weight format: its codec, its quantiser, and the table that the program reads.
#include "apr/format.hpp"
#include "apr/quantize.hpp"
#include "codec.h"

APR_EMBED_TEXT(codec_text, "codec.h");

namespace {

struct Definition {
  using Codec = ExampleInt3;
  static constexpr const char* kName = "example.int3";
  static constexpr const char* kDescription = "3.31 bits: superblocks of 256, 8-bit scales for 32 columns";
  static constexpr const char* kCppType = "ExampleInt3";
  static constexpr const char* kSource = codec_text;
  static constexpr int kGgufType = -1;

  static void quantize(const float* x, const float* weight, uint8_t* block) {
    const auto fit =
        apr::fit::superblock_scales<8, 32>(x, weight, -128.0f, 127.0f, apr::fit::Integers{-4.0f, 3.0f});
    for (int byte = 0; byte < 32; ++byte) {
      const float* q = &fit.q[byte / 16 * 128 + byte / 8 % 2 * 16 + byte % 8];
      int v[8];
      for (int n = 0; n < 8; ++n) v[n] = static_cast<int>(q[n / 2 * 32 + n % 2 * 8]) & 7;
      block[byte] = static_cast<uint8_t>(v[0] << 5 | v[1] << 2 | v[2] >> 1);
      block[32 + byte] = static_cast<uint8_t>(v[3] << 5 | v[4] << 2 | v[5] >> 1);
      block[64 + byte] = static_cast<uint8_t>(v[6] << 5 | v[7] << 2 | (v[5] & 1) << 1 | (v[2] & 1));
    }
    for (int s = 0; s < 8; ++s) block[96 + s] = static_cast<uint8_t>(static_cast<int>(fit.scale[s]));
    apr::store_half(block + 104, fit.d);
  }
};

constexpr const apr_quant_format* kFormats[] = {&apr::Format<Definition>::kTable};

}  // namespace

APR_PLUGIN_ENTRY = {sizeof(apr_plugin),
                    APR_ABI_MAJOR,
                    APR_ABI_MINOR,
                    "example.int3",
                    "0.1.0",
                    "Apache-2.0",
                    kFormats,
                    1,
                    nullptr,
                    0};
