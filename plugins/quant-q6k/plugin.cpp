// The q6_k weight format.
#include "apr/format.hpp"
#include "apr/quantize.hpp"
#include "codec.h"
#include "cpu.hpp"

APR_EMBED_TEXT(codec_text, "codec.h");

namespace {

struct Q6K {
  using Codec = apr::Q6K;
  static constexpr const char* kName = "q6_k";
  static constexpr const char* kDescription =
      "6.56 bits: superblocks of 256, 6-bit quants, 8-bit scales for 16 columns";
  static constexpr const char* kCppType = "apr::Q6K";
  static constexpr const char* kSource = codec_text;
  static constexpr int kGgufType = 14;

#if APR_HAS_X86_KERNELS
  struct Avx2 {
    static constexpr auto unpack_int = &q6k_avx2::unpack_int;
    static constexpr auto gemv_int = &apr::cpu::avx2::gemv_by<q6k_avx2::Gemv>;
  };
  struct Avx512 {
    static constexpr auto unpack_int = &q6k_avx512::unpack_int;
    static constexpr auto gemv_int = &apr::cpu::avx512::gemv_by<q6k_avx512::Gemv>;
  };
#endif

  static void quantize(const float* x, const float* weight, uint8_t* block) {
    const auto fit =
        apr::fit::superblock_scales<16, 16>(x, weight, -128.0f, 127.0f, apr::fit::Integers{-32.0f, 31.0f},
                                            {apr::fit::Emphasis::Square, apr::fit::Emphasis::None});
    std::memset(block, 0, 192);
    for (int column = 0; column < 256; ++column) {
      const int h = column / 128, l = column % 128;
      const int q = static_cast<int>(fit.q[column]) + 32;
      block[64 * h + l % 64] |= static_cast<uint8_t>((q & 15) << (l / 64 * 4));
      block[128 + 32 * h + l % 32] |= static_cast<uint8_t>((q >> 4) << (l / 32 * 2));
    }
    for (int s = 0; s < 16; ++s) block[192 + s] = static_cast<uint8_t>(static_cast<int8_t>(fit.scale[s]));
    apr::store_half(block + 208, fit.d);
  }
};

constexpr const apr_quant_format* kFormats[] = {&apr::Format<Q6K>::kTable};

}  // namespace

APR_PLUGIN_ENTRY = {sizeof(apr_plugin),
                    APR_ABI_MAJOR,
                    APR_ABI_MINOR,
                    "quant-q6k",
                    "0.1.0",
                    "Apache-2.0",
                    kFormats,
                    1,
                    nullptr,
                    0};
