// The q5_k weight format.
#include "apr/format.hpp"
#include "apr/quantize.hpp"
#include "codec.h"
#include "cpu.hpp"

APR_EMBED_TEXT(codec_text, "codec.h");

namespace {

struct Q5K {
  using Codec = apr::Q5K;
  static constexpr const char* kName = "q5_k";
  static constexpr const char* kDescription =
      "5.5 bits: superblocks of 256, 5-bit quants, 6-bit scales and mins for 32 columns";
  static constexpr const char* kCppType = "apr::Q5K";
  static constexpr const char* kSource = codec_text;
  static constexpr int kGgufType = 13;

#if APR_HAS_X86_KERNELS
  struct Avx2 {
    static constexpr auto unpack_int = &q5k_avx2::unpack_int;
    static constexpr auto gemv_int = &apr::cpu::avx2::gemv_by<q5k_avx2::Gemv>;
  };
  struct Avx512 {
    static constexpr auto unpack_int = &q5k_avx512::unpack_int;
    static constexpr auto gemv_int = &apr::cpu::avx512::gemv_by<q5k_avx512::Gemv>;
  };
#endif

  static void quantize(const float* x, const float* weight, uint8_t* block) {
    const auto fit = apr::fit::superblock_affine<8, 32>(x, weight, 63.0f, 63.0f, 31.0f);
    apr::store_half(block, fit.d);
    apr::store_half(block + 2, fit.dmin);
    apr::pack_scales_and_mins(fit.scale, fit.min, block + 4);
    uint8_t *high = block + 16, *qs = block + 48;
    std::memset(high, 0, 32);
    for (int g = 0; g < 4; ++g)
      for (int i = 0; i < 32; ++i) {
        const int a = static_cast<int>(fit.q[64 * g + i]), b = static_cast<int>(fit.q[64 * g + 32 + i]);
        qs[32 * g + i] = static_cast<uint8_t>((a & 15) | (b & 15) << 4);
        high[i] |= static_cast<uint8_t>((a >> 4) << (2 * g) | (b >> 4) << (2 * g + 1));
      }
  }
};

constexpr const apr_quant_format* kFormats[] = {&apr::Format<Q5K>::kTable};

}  // namespace

APR_PLUGIN_ENTRY = {sizeof(apr_plugin),
                    APR_ABI_MAJOR,
                    APR_ABI_MINOR,
                    "quant-q5k",
                    "0.1.0",
                    "Apache-2.0",
                    kFormats,
                    1,
                    nullptr,
                    0};
