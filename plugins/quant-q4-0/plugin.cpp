// The formats with one scale (and minimum) per 32 columns: q4_0, q4_1, q5_0, q5_1, q8_0.
#include "apr/format.hpp"
#include "apr/quantize.hpp"
#include "cpu.hpp"
#include "q4_0.h"
#include "q4_1.h"
#include "q5_0.h"
#include "q5_1.h"
#include "q8_0.h"

APR_EMBED_TEXT(q4_0_text, "q4_0.h");
APR_EMBED_TEXT(q4_1_text, "q4_1.h");
APR_EMBED_TEXT(q5_0_text, "q5_0.h");
APR_EMBED_TEXT(q5_1_text, "q5_1.h");
APR_EMBED_TEXT(q8_0_text, "q8_0.h");

namespace {

#if APR_HAS_X86_KERNELS
template <class Block>
struct Avx2Kernels {
  static constexpr auto unpack_int = &q4_0_avx2::unpack_int<Block>;
  static constexpr auto gemv_int = &apr::cpu::avx2::gemv_by<q4_0_avx2::Gemv<Block>>;
};
template <class Block>
struct Avx512Kernels {
  static constexpr auto unpack_int =
      &q4_0_avx2::unpack_int<Block>;  // a block is one 256-bit store: no wider is faster
  static constexpr auto gemv_int = &apr::cpu::avx512::gemv_by<q4_0_avx512::Gemv<Block>>;
};
#endif

// Integers of 32 columns: column i to the low nibble of byte i, column 16 + i to the high one; returns the
// fifth bits.
uint32_t pack_nibbles(const float* q, int bias, uint8_t* qs) {
  uint32_t high = 0;
  for (int i = 0; i < 16; ++i) {
    const int a = static_cast<int>(q[i]) + bias, b = static_cast<int>(q[16 + i]) + bias;
    qs[i] = static_cast<uint8_t>((a & 15) | (b & 15) << 4);
    high |= static_cast<uint32_t>(a >> 4) << i | static_cast<uint32_t>(b >> 4) << (16 + i);
  }
  return high;
}

// d to the block's first bytes, and the integers that are nearest under the d that was stored.
void round_scaled(const float* x, const float* weight, float lo, float hi, uint8_t* block, float* q,
                  apr::fit::Emphasis weighted = apr::fit::Emphasis::Root) {
  const float d =
      apr::fit::scale_only<32>(x, weight, apr::fit::Integers{lo, hi}, {apr::fit::Emphasis::None, weighted});
  apr::fit::round_to<32>(x, weight, d, 0.0f, lo, hi, q);
  apr::store_half(block, d);
}
void round_affine(const float* x, const float* weight, float hi, uint8_t* block, float* q) {
  const apr::fit::Affine fit = apr::fit::scale_and_offset<32>(x, weight, hi, INFINITY);
  apr::fit::round_to<32>(x, weight, fit.scale, fit.offset, 0.0f, hi, q);
  apr::store_half(block, fit.scale);
  apr::store_half(block + 2, fit.offset);
}

struct Q4_0 {
  using Codec = apr::Q4_0;
  static constexpr const char* kName = "q4_0";
  static constexpr const char* kDescription = "4.5 bits: blocks of 32, 4-bit quants and a scale";
  static constexpr const char* kCppType = "apr::Q4_0";
  static constexpr const char* kSource = q4_0_text;
  static constexpr int kGgufType = 2;
#if APR_HAS_X86_KERNELS
  using Avx2 = Avx2Kernels<Q4_0Block>;
  using Avx512 = Avx512Kernels<Q4_0Block>;
#endif
  static void quantize(const float* x, const float* weight, uint8_t* block) {
    float q[32];
    round_scaled(x, weight, -8.0f, 7.0f, block, q);
    pack_nibbles(q, 8, block + 2);
  }
};

struct Q4_1 {
  using Codec = apr::Q4_1;
  static constexpr const char* kName = "q4_1";
  static constexpr const char* kDescription = "5 bits: blocks of 32, 4-bit quants, a scale and a minimum";
  static constexpr const char* kCppType = "apr::Q4_1";
  static constexpr const char* kSource = q4_1_text;
  static constexpr int kGgufType = 3;
#if APR_HAS_X86_KERNELS
  using Avx2 = Avx2Kernels<Q4_1Block>;
  using Avx512 = Avx512Kernels<Q4_1Block>;
#endif
  static void quantize(const float* x, const float* weight, uint8_t* block) {
    float q[32];
    round_affine(x, weight, 15.0f, block, q);
    pack_nibbles(q, 0, block + 4);
  }
};

struct Q5_0 {
  using Codec = apr::Q5_0;
  static constexpr const char* kName = "q5_0";
  static constexpr const char* kDescription = "5.5 bits: blocks of 32, 5-bit quants and a scale";
  static constexpr const char* kCppType = "apr::Q5_0";
  static constexpr const char* kSource = q5_0_text;
  static constexpr int kGgufType = 6;
#if APR_HAS_X86_KERNELS
  using Avx2 = Avx2Kernels<Q5_0Block>;
  using Avx512 = Avx512Kernels<Q5_0Block>;
#endif
  static void quantize(const float* x, const float* weight, uint8_t* block) {
    float q[32];
    round_scaled(x, weight, -16.0f, 15.0f, block, q);
    const uint32_t high = pack_nibbles(q, 16, block + 6);
    std::memcpy(block + 2, &high, 4);
  }
};

struct Q5_1 {
  using Codec = apr::Q5_1;
  static constexpr const char* kName = "q5_1";
  static constexpr const char* kDescription = "6 bits: blocks of 32, 5-bit quants, a scale and a minimum";
  static constexpr const char* kCppType = "apr::Q5_1";
  static constexpr const char* kSource = q5_1_text;
  static constexpr int kGgufType = 7;
#if APR_HAS_X86_KERNELS
  using Avx2 = Avx2Kernels<Q5_1Block>;
  using Avx512 = Avx512Kernels<Q5_1Block>;
#endif
  static void quantize(const float* x, const float* weight, uint8_t* block) {
    float q[32];
    round_affine(x, weight, 31.0f, block, q);
    const uint32_t high = pack_nibbles(q, 0, block + 8);
    std::memcpy(block + 4, &high, 4);
  }
};

struct Q8_0 {
  using Codec = apr::Q8_0;
  static constexpr const char* kName = "q8_0";
  static constexpr const char* kDescription = "8.5 bits: blocks of 32, 8-bit quants and a scale";
  static constexpr const char* kCppType = "apr::Q8_0";
  static constexpr const char* kSource = q8_0_text;
  static constexpr int kGgufType = 8;
#if APR_HAS_X86_KERNELS
  using Avx2 = Avx2Kernels<Q8_0Block>;
  using Avx512 = Avx512Kernels<Q8_0Block>;
#endif
  static void quantize(const float* x, const float* weight, uint8_t* block) {
    float q[32];
    round_scaled(x, weight, -128.0f, 127.0f, block, q, apr::fit::Emphasis::None);
    for (int i = 0; i < 32; ++i) block[2 + i] = static_cast<uint8_t>(static_cast<int8_t>(q[i]));
  }
};

constexpr const apr_quant_format* kFormats[] = {&apr::Format<Q4_0>::kTable, &apr::Format<Q4_1>::kTable,
                                                &apr::Format<Q5_0>::kTable, &apr::Format<Q5_1>::kTable,
                                                &apr::Format<Q8_0>::kTable};

}  // namespace

APR_PLUGIN_ENTRY = {sizeof(apr_plugin),
                    APR_ABI_MAJOR,
                    APR_ABI_MINOR,
                    "quant-q4-0",
                    "0.1.0",
                    "Apache-2.0",
                    kFormats,
                    5,
                    nullptr,
                    0};
