// The f32 weight format.
#include "apr/format.hpp"
#include "codec.h"
#include "cpu.hpp"

APR_EMBED_TEXT(codec_text, "codec.h");

namespace {

struct F32 {
  using Codec = apr::F32;
  static constexpr const char* kName = "f32";
  static constexpr const char* kDescription = "32 bits: IEEE binary32";
  static constexpr const char* kCppType = "apr::F32";
  static constexpr const char* kSource = codec_text;
  static constexpr int kGgufType = 0;
  static constexpr int kElements = 1;
#if APR_HAS_X86_KERNELS
  struct Avx2 {
    static constexpr auto gemv_float = &apr::cpu::avx2::element_gemv<f32_avx2::Float>;
    static constexpr auto unpack_float = &apr::cpu::avx2::element_unpack<f32_avx2::Float>;
  };
  struct Avx512 {
    static constexpr auto gemv_float = &apr::cpu::avx512::element_gemv<f32_avx512::Float>;
    static constexpr auto unpack_float = &apr::cpu::avx512::element_unpack<f32_avx512::Float>;
  };
#endif
  static void quantize(const float* x, const float*, uint8_t* block) { std::memcpy(block, x, Codec::kBytes); }
};

constexpr const apr_quant_format* kFormats[] = {&apr::Format<F32>::kTable};

}  // namespace

APR_PLUGIN_ENTRY = {sizeof(apr_plugin),
                    APR_ABI_MAJOR,
                    APR_ABI_MINOR,
                    "quant-f32",
                    "0.1.0",
                    "Apache-2.0",
                    kFormats,
                    1,
                    nullptr,
                    0};
