// The q4_k weight format.
#include "apr/format.hpp"
#include "apr/quantize.hpp"
#include "codec.h"
#include "cpu.hpp"

APR_EMBED_TEXT(codec_text, "codec.h");

namespace {

struct Q4K {
  using Codec = apr::Q4K;
  static constexpr const char* kName = "q4_k";
  static constexpr const char* kDescription =
      "4.5 bits: superblocks of 256, 4-bit quants, 6-bit scales and mins for 32 columns";
  static constexpr const char* kCppType = "apr::Q4K";
  static constexpr const char* kSource = codec_text;
  static constexpr int kGgufType = 12;

#if APR_HAS_X86_KERNELS
  struct Avx2 {
    static constexpr auto unpack_int = &q4k_avx2::unpack_int;
    static constexpr auto gemv_int = &apr::cpu::avx2::gemv_by<q4k_avx2::Gemv>;
  };
  struct Avx512 {
    static constexpr auto unpack_int = &q4k_avx512::unpack_int;
    static constexpr auto gemv_int = &apr::cpu::avx512::gemv_by<q4k_avx512::Gemv>;
  };
#endif

  static void quantize(const float* x, const float* weight, uint8_t* block) {
    const auto fit = apr::fit::superblock_affine<8, 32>(x, weight, 63.0f, 63.0f, 15.0f);
    apr::store_half(block, fit.d);
    apr::store_half(block + 2, fit.dmin);
    apr::pack_scales_and_mins(fit.scale, fit.min, block + 4);
    uint8_t* qs = block + 16;
    for (int g = 0; g < 4; ++g)
      for (int i = 0; i < 32; ++i)
        qs[32 * g + i] = static_cast<uint8_t>(static_cast<int>(fit.q[64 * g + i]) |
                                              static_cast<int>(fit.q[64 * g + 32 + i]) << 4);
  }
};

constexpr const apr_quant_format* kFormats[] = {&apr::Format<Q4K>::kTable};

}  // namespace

APR_PLUGIN_ENTRY = {sizeof(apr_plugin),
                    APR_ABI_MAJOR,
                    APR_ABI_MINOR,
                    "quant-q4k",
                    "0.1.0",
                    "Apache-2.0",
                    kFormats,
                    1,
                    nullptr,
                    0};
