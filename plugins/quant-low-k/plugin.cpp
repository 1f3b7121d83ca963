// The q2_k and q3_k weight formats.
#include "apr/format.hpp"
#include "apr/quantize.hpp"
#include "cpu.hpp"
#include "q2_k.h"
#include "q3_k.h"

APR_EMBED_TEXT(q2_k_text, "q2_k.h");
APR_EMBED_TEXT(q3_k_text, "q3_k.h");

namespace {

struct Q2K {
  using Codec = apr::Q2K;
  static constexpr const char* kName = "q2_k";
  static constexpr const char* kDescription =
      "2.63 bits: superblocks of 256, 2-bit quants, 4-bit scales and mins for 16 columns";
  static constexpr const char* kCppType = "apr::Q2K";
  static constexpr const char* kSource = q2_k_text;
  static constexpr int kGgufType = 10;
#if APR_HAS_X86_KERNELS
  struct Avx2 {
    static constexpr auto unpack_int = &low_k_avx2::unpack_q2k;
  };
  using Avx512 = Avx2;
#endif

  static void quantize(const float* x, const float* weight, uint8_t* block) {
    const auto fit = apr::fit::superblock_affine<16, 16>(
        x, weight, 15.0f, 15.0f, 3.0f, {apr::fit::Emphasis::Magnitude, apr::fit::Emphasis::Magnitude});
    for (int s = 0; s < 16; ++s)
      block[s] = static_cast<uint8_t>(static_cast<int>(fit.scale[s]) | static_cast<int>(fit.min[s]) << 4);
    std::memset(block + 16, 0, 64);
    for (int column = 0; column < 256; ++column)
      block[16 + column / 128 * 32 + column % 32] |=
          static_cast<uint8_t>(static_cast<int>(fit.q[column]) << (column % 128 / 32 * 2));
    apr::store_half(block + 80, fit.d);
    apr::store_half(block + 82, fit.dmin);
  }
};

struct Q3K {
  using Codec = apr::Q3K;
  static constexpr const char* kName = "q3_k";
  static constexpr const char* kDescription =
      "3.44 bits: superblocks of 256, 3-bit quants, 6-bit scales for 16 columns";
  static constexpr const char* kCppType = "apr::Q3K";
  static constexpr const char* kSource = q3_k_text;
  static constexpr int kGgufType = 11;
#if APR_HAS_X86_KERNELS
  struct Avx2 {
    static constexpr auto unpack_int = &low_k_avx2::unpack_q3k;
  };
  using Avx512 = Avx2;
#endif

  static void quantize(const float* x, const float* weight, uint8_t* block) {
    const auto fit =
        apr::fit::superblock_scales<16, 16>(x, weight, -32.0f, 31.0f, apr::fit::Integers{-4.0f, 3.0f});
    std::memset(block, 0, Codec::kBytes);
    for (int column = 0; column < 256; ++column) {
      const int q = static_cast<int>(fit.q[column]) + 4;
      block[column % 32] |= static_cast<uint8_t>((q >> 2) << (column / 32));
      block[32 + column / 128 * 32 + column % 32] |= static_cast<uint8_t>((q & 3) << (column % 128 / 32 * 2));
    }
    for (int s = 0; s < 16; ++s) {
      const int scale = static_cast<int>(fit.scale[s]) + 32;
      block[96 + s % 8] |= static_cast<uint8_t>((scale & 15) << (s / 8 * 4));
      block[104 + s % 4] |= static_cast<uint8_t>((scale >> 4) << (s / 4 * 2));
    }
    apr::store_half(block + 108, fit.d);
  }
};

constexpr const apr_quant_format* kFormats[] = {&apr::Format<Q2K>::kTable, &apr::Format<Q3K>::kTable};

}  // namespace

APR_PLUGIN_ENTRY = {sizeof(apr_plugin),
                    APR_ABI_MAJOR,
                    APR_ABI_MINOR,
                    "quant-low-k",
                    "0.1.0",
                    "Apache-2.0",
                    kFormats,
                    2,
                    nullptr,
                    0};
