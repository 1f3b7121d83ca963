// The formats whose nibbles index a table: iq4_nl, iq4_xs, mxfp4.
#include "apr/format.hpp"
#include "apr/quantize.hpp"
#include "cpu.hpp"
#include "iq4_nl.h"
#include "iq4_xs.h"
#include "mxfp4.h"

APR_EMBED_TEXT(iq4_nl_text, "iq4_nl.h");
APR_EMBED_TEXT(iq4_xs_text, "iq4_xs.h");
APR_EMBED_TEXT(mxfp4_text, "mxfp4.h");

namespace {

constexpr apr::fit::Table<16> kIq4{
    {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}};
// Negative zero left out.
constexpr apr::fit::Table<15> kFp4{{-12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 12}};

// The nibble of a value of the codec's table.
template <class Codec>
int nibble_of(float value) {
  const apr::U4 words = Codec::table();
  int8_t table[16];
  std::memcpy(table, &words, 16);
  int nibble = 0;
  // What is no value of the table comes from weights beyond the format's range, whose scale is refused after
  // packing.
  while (nibble < 15 && table[nibble] != static_cast<int8_t>(value)) ++nibble;
  return nibble;
}

template <class Codec>
void pack(const float* value, uint8_t* qs) {
  for (int i = 0; i < 16; ++i)
    qs[i] = static_cast<uint8_t>(nibble_of<Codec>(value[i]) | nibble_of<Codec>(value[16 + i]) << 4);
}

struct IQ4_NL {
  using Codec = apr::IQ4_NL;
  static constexpr const char* kName = "iq4_nl";
  static constexpr const char* kDescription =
      "4.5 bits: blocks of 32, nibbles of an uneven table and a scale";
  static constexpr const char* kCppType = "apr::IQ4_NL";
  static constexpr const char* kSource = iq4_nl_text;
  static constexpr int kGgufType = 20;
#if APR_HAS_X86_KERNELS
  struct Avx2 {
    static constexpr auto unpack_int = &table4_avx2::unpack_iq4_nl;
  };
  using Avx512 = Avx2;
#endif

  static void quantize(const float* x, const float* weight, uint8_t* block) {
    const float d =
        apr::fit::scale_only<32>(x, weight, kIq4, {apr::fit::Emphasis::Square, apr::fit::Emphasis::WideRoot});
    float value[32];
    kIq4.round<32>(x, weight, d, value);
    apr::store_half(block, d);
    pack<Codec>(value, block + 2);
  }
};

struct IQ4_XS {
  using Codec = apr::IQ4_XS;
  static constexpr const char* kName = "iq4_xs";
  static constexpr const char* kDescription =
      "4.25 bits: superblocks of 256, nibbles of an uneven table, 6-bit scales for 32 columns";
  static constexpr const char* kCppType = "apr::IQ4_XS";
  static constexpr const char* kSource = iq4_xs_text;
  static constexpr int kGgufType = 23;
#if APR_HAS_X86_KERNELS
  struct Avx2 {
    static constexpr auto unpack_int = &table4_avx2::unpack_iq4_xs;
  };
  using Avx512 = Avx2;
#endif

  static void quantize(const float* x, const float* weight, uint8_t* block) {
    const auto fit = apr::fit::superblock_scales<8, 32>(x, weight, -32.0f, 31.0f, kIq4);
    uint32_t low = 0;
    uint16_t high = 0;
    for (int s = 0; s < 8; ++s) {
      const auto scale = static_cast<uint32_t>(static_cast<int>(fit.scale[s]) + 32);
      low |= (scale & 15u) << (4 * s);
      high = static_cast<uint16_t>(high | (scale >> 4) << (2 * s));
      pack<Codec>(fit.q + 32 * s, block + 8 + 16 * s);
    }
    apr::store_half(block, fit.d);
    std::memcpy(block + 2, &high, 2);
    std::memcpy(block + 4, &low, 4);
  }
};

struct MXFP4 {
  using Codec = apr::MXFP4;
  static constexpr const char* kName = "mxfp4";
  static constexpr const char* kDescription = "4.25 bits: blocks of 32, E2M1 floats and a power of two";
  static constexpr const char* kCppType = "apr::MXFP4";
  static constexpr const char* kSource = mxfp4_text;
  static constexpr int kGgufType = 39;
#if APR_HAS_X86_KERNELS
  struct Avx2 {
    static constexpr auto unpack_int = &table4_avx2::unpack_mxfp4;
  };
  using Avx512 = Avx2;
#endif

  // The power of two that puts the greatest weight at the table's end, or one of its neighbours, whichever
  // errs least.
  static void quantize(const float* x, const float* weight, uint8_t* block) {
    float peak = 0.0f;
    for (int i = 0; i < 32; ++i) peak = std::fmax(peak, std::fabs(x[i]));
    // Errors are compared on weights brought to about 1, exactly: the squares of the greatest that fit would
    // overflow.
    const int exponent = peak > 0.0f ? std::ilogb(peak) : 0;
    float unit[32], best[32] = {}, least = INFINITY;
    for (int i = 0; i < 32; ++i) unit[i] = std::ldexp(x[i], -exponent);
    block[0] = 0;
    for (int step = -4; step <= -1; ++step) {
      const int e =
          exponent + step + 128;  // 2^(e - 128) * 12 is the table's end: -3 puts the peak there or just below
      if (e < 0 || e > 254) continue;
      float value[32];
      const float error = kFp4.round<32>(unit, weight, std::ldexp(1.0f, step), value);
      if (!(error < least)) continue;
      least = error;
      block[0] = static_cast<uint8_t>(e);
      std::memcpy(best, value, sizeof(best));
    }
    pack<Codec>(best, block + 1);
  }
};

constexpr const apr_quant_format* kFormats[] = {&apr::Format<IQ4_NL>::kTable, &apr::Format<IQ4_XS>::kTable,
                                                &apr::Format<MXFP4>::kTable};

}  // namespace

APR_PLUGIN_ENTRY = {sizeof(apr_plugin),
                    APR_ABI_MAJOR,
                    APR_ABI_MINOR,
                    "quant-table4",
                    "0.1.0",
                    "Apache-2.0",
                    kFormats,
                    3,
                    nullptr,
                    0};
