// The f16 and bf16 weight formats.
#include "apr/format.hpp"
#include "apr/quantize.hpp"
#include "bf16.h"
#include "cpu.hpp"
#include "f16.h"

APR_EMBED_TEXT(f16_text, "f16.h");
APR_EMBED_TEXT(bf16_text, "bf16.h");

namespace {

#if APR_HAS_X86_KERNELS
template <class Load>
struct Avx2Kernels {
  static constexpr auto gemv_float = &apr::cpu::avx2::element_gemv<Load>;
  static constexpr auto unpack_float = &apr::cpu::avx2::element_unpack<Load>;
};
template <class Load>
struct Avx512Kernels {
  static constexpr auto gemv_float = &apr::cpu::avx512::element_gemv<Load>;
  static constexpr auto unpack_float = &apr::cpu::avx512::element_unpack<Load>;
};
#endif

struct F16 {
  using Codec = apr::F16;
  static constexpr const char* kName = "f16";
  static constexpr const char* kDescription = "16 bits: IEEE binary16";
  static constexpr const char* kCppType = "apr::F16";
  static constexpr const char* kSource = f16_text;
  static constexpr int kGgufType = 1;
#if APR_HAS_X86_KERNELS
  using Avx2 = Avx2Kernels<f16_avx2::Half>;
  using Avx512 = Avx512Kernels<f16_avx512::Half>;
#endif
  static constexpr int kElements = 1;
  // Nearest even. From 65520 on a weight would become infinite: apr::Format refuses it, naming row and
  // columns.
  static void quantize(const float* x, const float*, uint8_t* block) {
    for (int i = 0; i < Codec::kBlock; ++i) apr::store_half(block + 2 * i, x[i]);
  }
};

struct BF16 {
  using Codec = apr::BF16;
  static constexpr const char* kName = "bf16";
  static constexpr const char* kDescription = "16 bits: the upper half of a binary32";
  static constexpr const char* kCppType = "apr::BF16";
  static constexpr const char* kSource = bf16_text;
  static constexpr int kGgufType = 30;
#if APR_HAS_X86_KERNELS
  using Avx2 = Avx2Kernels<f16_avx2::Bfloat>;
  using Avx512 = Avx512Kernels<f16_avx512::Bfloat>;
#endif
  static constexpr int kElements = 1;
  static void quantize(const float* x, const float*, uint8_t* block) {
    for (int i = 0; i < Codec::kBlock; ++i) {
      const uint16_t b = apr::float_to_bfloat(x[i]);
      std::memcpy(block + 2 * i, &b, 2);
    }
  }
};

constexpr const apr_quant_format* kFormats[] = {&apr::Format<F16>::kTable, &apr::Format<BF16>::kTable};

}  // namespace

APR_PLUGIN_ENTRY = {sizeof(apr_plugin),
                    APR_ABI_MAJOR,
                    APR_ABI_MINOR,
                    "quant-f16",
                    "0.1.0",
                    "Apache-2.0",
                    kFormats,
                    2,
                    nullptr,
                    0};
