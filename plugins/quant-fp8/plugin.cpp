// The 8-bit floats: f8_e4m3 and f8_e5m2.
#include "apr/format.hpp"
#include "apr/quantize.hpp"
#include "cpu.hpp"
#include "fp8.h"

APR_EMBED_TEXT(fp8_text, "fp8.h");

namespace {

#if APR_HAS_X86_KERNELS
template <class Element>
struct Avx2Kernels {
  static constexpr auto gemv_float = &apr::cpu::avx2::gemv_by<fp8_avx2::Gemv<Element>>;
  static constexpr auto unpack_float = &fp8_avx2::unpack_float<Element>;
};
template <class Element>
struct Avx512Kernels {
  static constexpr auto gemv_float = &apr::cpu::avx512::gemv_by<fp8_avx512::Gemv<Element>>;
  static constexpr auto unpack_float = &fp8_avx512::unpack_float<Element>;
};
#endif

// A finite float to the nearest code, ties to even; beyond the greatest value, the greatest.
template <int kMantissa, int kBias, uint32_t kGreatest>
uint8_t to_code(float v) {
  constexpr uint32_t kRebias = 127u - kBias;
  const uint32_t bits = apr::float_to_bits(v), sign = (bits >> 24) & 0x80u, magnitude = bits & 0x7fffffffu;
  uint32_t code;
  if (magnitude < (kRebias + 1u) << 23) {
    // Subnormal: adding a power of two whose last bit is the spacing rounds to it.
    constexpr uint32_t kAnchor = (kRebias + 1u + 23u - kMantissa) << 23;
    code = apr::float_to_bits(apr::bits_to_float(magnitude) + apr::bits_to_float(kAnchor)) - kAnchor;
  } else {
    constexpr int kShift = 23 - kMantissa;
    code = (magnitude - (kRebias << 23) + (1u << (kShift - 1)) - 1u + ((magnitude >> kShift) & 1u)) >> kShift;
  }
  return static_cast<uint8_t>(sign | (code < kGreatest ? code : kGreatest));
}

// The greatest weight of the block becomes the greatest code.
template <uint8_t (*kToCode)(float)>
void quantize_block(const float* x, float greatest, uint8_t* block) {
  float peak = 0.0f;
  for (int i = 0; i < 128; ++i) peak = std::fmax(peak, std::fabs(x[i]));
  float scale = peak / greatest;
  // Among the least subnormals the quotient may be 0, where the least float still serves.
  if (scale == 0.0f && peak > 0.0f) scale = apr::bits_to_float(1);
  for (int i = 0; i < 128; ++i) block[i] = kToCode(scale > 0.0f ? x[i] / scale : 0.0f);
  std::memcpy(block + 128, &scale, 4);
}

float scale_of(const uint8_t* block) {
  float scale;
  std::memcpy(&scale, block + 128, 4);
  return scale;
}

// No code has all bits of kNan, and no product leaves the range of floats.
template <uint8_t kNan>
bool plainly_finite(const uint8_t* block) {
  int nans = 0;
  for (int i = 0; i < 128; ++i) nans += (block[i] & kNan) == kNan;
  return nans == 0 && std::fabs(scale_of(block)) < 1e30f;
}

const char* wrong_scale(const uint8_t* block) {
  return scale_of(block) < 0.0f ? "its scale is negative" : nullptr;
}

struct F8_E4M3 {
  using Codec = apr::F8_E4M3;
  static constexpr const char* kName = "f8_e4m3";
  static constexpr const char* kDescription =
      "8.25 bits: blocks of 128, OFP8 E4M3 floats and a float32 scale";
  static constexpr const char* kCppType = "apr::F8_E4M3";
  static constexpr const char* kSource = fp8_text;
  static constexpr int kGgufType = -1;
#if APR_HAS_X86_KERNELS
  using Avx2 = Avx2Kernels<fp8_avx2::E4M3>;
  using Avx512 = Avx512Kernels<fp8_avx512::E4M3>;
#endif
  static void quantize(const float* x, const float*, uint8_t* block) {
    quantize_block<to_code<3, 7, 0x7e>>(x, 448.0f, block);
  }
  static bool plainly_finite(const uint8_t* block) { return ::plainly_finite<0x7f>(block); }
  static const char* check(const uint8_t* block) { return wrong_scale(block); }
};

struct F8_E5M2 {
  using Codec = apr::F8_E5M2;
  static constexpr const char* kName = "f8_e5m2";
  static constexpr const char* kDescription =
      "8.25 bits: blocks of 128, OFP8 E5M2 floats and a float32 scale";
  static constexpr const char* kCppType = "apr::F8_E5M2";
  static constexpr const char* kSource = fp8_text;
  static constexpr int kGgufType = -1;
#if APR_HAS_X86_KERNELS
  using Avx2 = Avx2Kernels<fp8_avx2::E5M2>;
  using Avx512 = Avx512Kernels<fp8_avx512::E5M2>;
#endif
  static void quantize(const float* x, const float*, uint8_t* block) {
    quantize_block<to_code<2, 15, 0x7b>>(x, 57344.0f, block);
  }
  static bool plainly_finite(const uint8_t* block) { return ::plainly_finite<0x7c>(block); }
  static const char* check(const uint8_t* block) { return wrong_scale(block); }
};

constexpr const apr_quant_format* kFormats[] = {&apr::Format<F8_E4M3>::kTable, &apr::Format<F8_E5M2>::kTable};

}  // namespace

APR_PLUGIN_ENTRY = {sizeof(apr_plugin),
                    APR_ABI_MAJOR,
                    APR_ABI_MINOR,
                    "quant-fp8",
                    "0.1.0",
                    "Apache-2.0",
                    kFormats,
                    2,
                    nullptr,
                    0};
