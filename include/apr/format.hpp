// From one codec and one quantiser to a whole weight format: apr::Format<Definition>::kTable is the
// apr_quant_format that a plugin exports. A plugin is codec.h, a plugin.cpp like this, a plugin.toml and a
// shared library target:
//
//   #include "apr/format.hpp"
//   #include "codec.h"
//
//   APR_EMBED_TEXT(codec_text, "codec.h");        // found through the target's include path
//
//   namespace {
//   struct Q4K {
//     using Codec = apr::Q4K;
//     static constexpr const char* kName = "q4_k";
//     static constexpr const char* kDescription = "4.5 bits: ...";
//     static constexpr const char* kCppType = "apr::Q4K";
//     static constexpr const char* kSource = codec_text;
//     static constexpr int kGgufType = 12;        // or -1
//     // One block: x[kBlock] finite floats, weight[kBlock] >= 0 of each column's squared error, to kBytes bytes.
//     static void quantize(const float* x, const float* weight, uint8_t* block);
//
//     // Optional. Columns of one block in a file, where the codec's block covers several: 1 for f32, f16.
//     static constexpr int kElements = 1;
//     // Optional. A rule of the format beyond finite values: null, or what is wrong with the block.
//     static const char* check(const uint8_t* block);
//     // Optional, for speed: true when the block surely decodes to finite values, seen without decoding it.
//     static bool plainly_finite(const uint8_t* block);
//     // Optional: hand-written kernels; each instruction set has the derived ones for what is not named.
//     struct Avx2 { static constexpr auto unpack_int = &...; static constexpr auto gemv_int = &...; };
//     struct Avx512 { ... gemv_float, unpack_float ... };
//   };
//   constexpr const apr_quant_format* kFormats[] = {&apr::Format<Q4K>::kTable};
//   }
//   APR_PLUGIN_ENTRY = {sizeof(apr_plugin), APR_ABI_MAJOR, APR_ABI_MINOR, "quant-q4k", "0.1.0", "Apache-2.0",
//                       kFormats, 1, nullptr, 0};
#pragma once

#include <cmath>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "apr/abi.h"
#include "apr/codec.h"
#include "apr/cpu/portable.hpp"
#include "apr/quant.h"
#if APR_HAS_X86_KERNELS
#include "apr/cpu/avx2.hpp"
#include "apr/cpu/avx512.hpp"
#endif

// Defines `symbol`, a zero-terminated text with the contents of `file`, which is looked up in the include
// path. The assembler reads it, so that the text that NVRTC compiles is the file that the host compiled, line
// for line.
#define APR_EMBED_TEXT(symbol, file)                                                                      \
  extern "C" __attribute__((visibility("hidden"))) const char symbol[];                                   \
  __asm__(".pushsection .rodata\n.hidden " #symbol "\n.global " #symbol "\n" #symbol ":\n.incbin \"" file \
          "\"\n.byte 0\n.popsection\n")

namespace apr {

namespace cpu {
// The definition's hand-written kernels for an instruction set, if it has any.
struct NoOverride {};
template <class Definition>
struct OverrideAvx2 {
  using Type = NoOverride;
};
template <class Definition>
requires requires { typename Definition::Avx2; }
struct OverrideAvx2<Definition> {
  using Type = typename Definition::Avx2;
};
template <class Definition>
struct OverrideAvx512 {
  using Type = NoOverride;
};
template <class Definition>
requires requires { typename Definition::Avx512; }
struct OverrideAvx512<Definition> {
  using Type = typename Definition::Avx512;
};
}  // namespace cpu

template <class Definition>
struct Format {
  using Codec = typename Definition::Codec;
  using RowMajor = typename Codec::RowMajor;

  static constexpr int kElements = [] {
    if constexpr (requires { Definition::kElements; }) {
      return Definition::kElements;
    } else {
      return Codec::kBlock;
    }
  }();
  static constexpr int kElementBytes = Codec::kBytes * kElements / Codec::kBlock;  // of one block in a file
  static constexpr int kChunks = Codec::kBlock / (Codec::kRuns * Codec::kRun);
  static constexpr int kGroup = [] {
    if constexpr (Codec::kInteger) {
      return Codec::kGroup;
    } else {
      return 0;
    }
  }();

  static_assert(Codec::kBlock % (Codec::kRuns * Codec::kRun) == 0, "a block is a whole number of chunks");
  static_assert(Codec::kRun % 4 == 0, "a run is a whole number of quads");
  static_assert(Codec::kBlock % kElements == 0 && Codec::kBytes * kElements % Codec::kBlock == 0,
                "a codec block is a whole number of the file's blocks");
  static_assert(Codec::kBytes % Codec::kAlign == 0 && (Codec::kAlign & (Codec::kAlign - 1)) == 0,
                "kAlign is a power of two that divides kBytes");
  static_assert(!Codec::kInteger || ((kGroup == 16 || (kGroup > 0 && kGroup % 32 == 0)) &&
                                     kGroup % Codec::kRun == 0 && Codec::kBlock % kGroup == 0),
                "kGroup is 16 or a multiple of 32, a multiple of kRun, and divides kBlock");
  static_assert(!Codec::kInteger || kElements == Codec::kBlock,
                "only float codecs have formats of single elements");
  static_assert(RowMajor::kPlanes == 1 && RowMajor::kPlaneBytes[0] == Codec::kBytes);

  // ---- rows
  // ----------------------------------------------------------------------------------------------------------

  static uint64_t row_bytes(uint64_t k) { return k / kElements * kElementBytes; }

  static apr_status fail(apr_error* error, const char* format, ...) __attribute__((format(printf, 2, 3))) {
    va_list args;
    va_start(args, format);
    std::vsnprintf(error->message, error->struct_size - offsetof(apr_error, message), format, args);
    va_end(args);
    return APR_INVALID;
  }

  static apr_status quantize(const float* src, uint64_t n_rows, uint64_t k, const float* importance,
                             void* dst, apr_error* error) {
    if (k % kElements != 0)
      return fail(error, "%s: %llu columns are not a multiple of the block's %d", Definition::kName, ull(k),
                  kElements);
    const auto quantize_block = block_quantizer();
    auto* out = static_cast<uint8_t*>(dst);
    for (uint64_t n = 0; n < n_rows; ++n, src += k, out += row_bytes(k)) {
      for (uint64_t k0 = 0; k0 < k; k0 += Codec::kBlock) {
        const uint64_t cols = k - k0 < uint64_t{Codec::kBlock} ? k - k0 : uint64_t{Codec::kBlock};
        float x[Codec::kBlock] = {}, weight[Codec::kBlock] = {};
        uint8_t block[Codec::kBytes];
        for (uint64_t i = 0; i < cols; ++i) {
          x[i] = src[k0 + i];
          weight[i] = importance ? importance[k0 + i] : 1.0f;
          if (!std::isfinite(x[i]))
            return fail(error, "%s: row %llu column %llu is %f: only finite weights can be packed",
                        Definition::kName, ull(n), ull(k0 + i), static_cast<double>(x[i]));
          if (!(weight[i] >= 0.0f) || !std::isfinite(weight[i]))
            return fail(error, "%s: the importance of column %llu is %f: it must be finite and not negative",
                        Definition::kName, ull(k0 + i), static_cast<double>(weight[i]));
        }
        quantize_block(x, weight, block);
        if (const int column = not_finite(block); column >= 0)
          return fail(error, "%s: row %llu column %llu is %g, which is beyond the format's range",
                      Definition::kName, ull(n), ull(k0) + static_cast<unsigned>(column),
                      static_cast<double>(x[column]));
        std::memcpy(out + row_bytes(k0), block, row_bytes(cols));
      }
    }
    return APR_OK;
  }

  static void dequantize(const void* src, uint64_t n_rows, uint64_t k, float* dst) {
    for (uint64_t n = 0; n < n_rows; ++n)
      unpack_float(static_cast<const uint8_t*>(src) + n * row_bytes(k), 0, k, dst + n * k);
  }

  static apr_status validate(const void* src, uint64_t n_rows, uint64_t k, apr_error* error) {
    if (k % kElements != 0)
      return fail(error, "%s: %llu columns are not a multiple of the block's %d", Definition::kName, ull(k),
                  kElements);
    const auto* p = static_cast<const uint8_t*>(src);
    for (uint64_t n = 0; n < n_rows; ++n, p += row_bytes(k)) {
      for (uint64_t k0 = 0; k0 < k; k0 += Codec::kBlock) {
        const uint64_t cols = k - k0 < uint64_t{Codec::kBlock} ? k - k0 : uint64_t{Codec::kBlock};
        uint8_t padded[Codec::kBytes] = {};
        const uint8_t* block = p + row_bytes(k0);
        if (cols < Codec::kBlock) block = static_cast<uint8_t*>(std::memcpy(padded, block, row_bytes(cols)));
        if (const int column = not_finite(block); column >= 0) {
          const unsigned long long wrong = ull(k0) + static_cast<unsigned>(column);
          return fail(error, "%s: row %llu block %llu decodes to NaN or infinity at column %llu",
                      Definition::kName, ull(n), wrong / kElements, wrong);
        }
        if constexpr (requires { Definition::check(block); }) {
          if (const char* wrong = Definition::check(block))
            return fail(error, "%s: row %llu block %llu: %s", Definition::kName, ull(n), ull(k0 / kElements),
                        wrong);
        }
      }
    }
    return APR_OK;
  }

  // ---- the codec as data
  // -----------------------------------------------------------------------------------------------

  template <class Layout>
  static void split(const void* blocks, uint64_t n_blocks, uint8_t* const* planes) {
    const auto* block = static_cast<const uint8_t*>(blocks);
    uint8_t* out[Layout::kPlanes];
    for (int p = 0; p < Layout::kPlanes; ++p) out[p] = planes[p];
    for (uint64_t b = 0; b < n_blocks; ++b, block += Codec::kBytes) {
      Layout::split(block, out);
      for (int p = 0; p < Layout::kPlanes; ++p) out[p] += Layout::kPlaneBytes[p];
    }
  }

  template <class Layout>
  struct PlaneBytes {
    uint32_t bytes[Layout::kPlanes];
    constexpr PlaneBytes() : bytes{} {
      for (int p = 0; p < Layout::kPlanes; ++p) bytes[p] = static_cast<uint32_t>(Layout::kPlaneBytes[p]);
    }
  };
  template <class Layout>
  static constexpr PlaneBytes<Layout> kPlaneBytes{};

  // "apr::Q4K" and "Planar" to "apr::Q4K::Planar".
  struct LayoutNames {
    char row_major[128], planar[128];
    constexpr LayoutNames() : row_major{}, planar{} {
      append(append(row_major, Definition::kCppType), "::RowMajor");
      append(append(planar, Definition::kCppType), "::Planar");
    }
    static constexpr char* append(char* end, const char* text) {
      while (*text) *end++ = *text++;
      return end;
    }
  };
  static constexpr LayoutNames kLayoutNames{};

  static constexpr bool kPlanar = requires { typename Codec::Planar; };

  static constexpr apr_layout kRowMajor{sizeof(apr_layout),          "row_major", kLayoutNames.row_major, 1,
                                        kPlaneBytes<RowMajor>.bytes, nullptr};

  template <class C>
  static constexpr apr_layout kPlanarOf{sizeof(apr_layout),
                                        "planar",
                                        kLayoutNames.planar,
                                        C::Planar::kPlanes,
                                        kPlaneBytes<typename C::Planar>.bytes,
                                        &split<typename C::Planar>};

  struct Layouts {
    const apr_layout* pointers[2];
    uint32_t count;
    constexpr Layouts() : pointers{&kRowMajor, nullptr}, count{1} {
      if constexpr (kPlanar) {
        static_assert(Codec::Planar::kPlanes <= APR_MAX_PLANES);
        pointers[count++] = &kPlanarOf<Codec>;
      }
    }
  };
  static constexpr Layouts kLayouts{};

  static constexpr apr_codec kCodec{
      sizeof(apr_codec),    Codec::kInteger ? APR_CODEC_INTEGER : APR_CODEC_FLOAT,
      Definition::kCppType, Definition::kSource,
      Codec::kBlock,        Codec::kBytes,
      Codec::kRuns,         Codec::kRun,
      kLayouts.pointers,    kLayouts.count};

  // ---- CPU kernels
  // -------------------------------------------------------------------------------------------------------

  // What is hand-written in Override wins; a hand-written unpack also feeds the derived GEMV.
  template <class Derived, class Override>
  static constexpr apr_cpu_kernels kernels(apr_isa isa) {
    apr_cpu_kernels set{};
    set.struct_size = sizeof(apr_cpu_kernels);
    set.isa = isa;
    set.origin = "derived";
    if constexpr (
        requires { Override::gemv_int; } || requires { Override::gemv_float; })
      set.origin = "hand-written";
    else if constexpr (
        requires { Override::unpack_int; } || requires { Override::unpack_float; })
      set.origin = "derived, hand-written unpack";

    constexpr cpu::portable::UnpackInt unpack_int = [] {
      if constexpr (!Codec::kInteger) {
        return nullptr;
      } else if constexpr (requires { Override::unpack_int; }) {
        return Override::unpack_int;
      } else {
        return Derived::template kUnpackInt<Codec>;
      }
    }();
    set.unpack_int = unpack_int;
    constexpr cpu::portable::UnpackFloat unpack_float = [] {
      if constexpr (requires { Override::unpack_float; }) {
        return Override::unpack_float;
      } else if constexpr (Codec::kInteger) {
        return Derived::template kUnpackScaled<Codec, unpack_int>;
      } else {
        return Derived::template kUnpackFloat<Codec, kElements>;
      }
    }();
    set.unpack_float = unpack_float;
    if constexpr (requires { Override::gemv_float; }) {
      set.gemv_float = Override::gemv_float;
    } else {
      set.gemv_float = Derived::template kGemvFloat<Codec, unpack_float>;
    }
    if constexpr (requires { Override::gemv_int; }) {
      set.gemv_int = Override::gemv_int;
    } else if constexpr (
        Codec::kInteger && !requires { Override::unpack_int; } &&
        requires { Derived::template kGemvTiles<Codec>; }) {
      set.gemv_int = Derived::template kGemvTiles<Codec>;
      set.unpack_rows = Derived::template kUnpackTiles<Codec>;
    } else if constexpr (Codec::kInteger) {
      set.gemv_int = Derived::template kGemvInt<Codec, unpack_int>;
    }
    return set;
  }

  static constexpr apr_cpu_kernels kPortable =
      kernels<cpu::portable::Derived, cpu::NoOverride>(APR_ISA_PORTABLE);
#if APR_HAS_X86_KERNELS
  static constexpr apr_cpu_kernels kAvx2 =
      kernels<cpu::avx2::DerivedByTiles, typename cpu::OverrideAvx2<Definition>::Type>(APR_ISA_AVX2);
  static constexpr apr_cpu_kernels kAvx512 =
      kernels<cpu::avx512::DerivedByTiles, typename cpu::OverrideAvx512<Definition>::Type>(APR_ISA_AVX512);
  static constexpr const apr_cpu_kernels* kCpu[] = {&kPortable, &kAvx2, &kAvx512};
#else
  static constexpr const apr_cpu_kernels* kCpu[] = {&kPortable};
#endif

  static constexpr apr_quant_format kTable{sizeof(apr_quant_format),
                                           Definition::kName,
                                           Definition::kDescription,
                                           Definition::kGgufType,
                                           kElements,
                                           kElementBytes,
                                           Codec::kAlign < kElementBytes ? Codec::kAlign : kElementBytes,
                                           kGroup,
                                           &quantize,
                                           &dequantize,
                                           &validate,
                                           kCpu,
                                           sizeof(kCpu) / sizeof(kCpu[0]),
                                           &kCodec};

 private:
  static unsigned long long ull(uint64_t v) { return v; }

  static void unpack_float(const void* row, uint64_t k0, uint64_t cols, float* w) {
    cpu::portable::unpack_float<Codec, kElements>(row, k0, cols, w);
  }

  static cpu::portable::QuantizeBlock block_quantizer() {
#if APR_HAS_X86_KERNELS
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl"))
      return cpu::avx512::Derived::kQuantizeBlock<Definition>;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
      return cpu::avx2::Derived::kQuantizeBlock<Definition>;
#endif
    return cpu::portable::Derived::kQuantizeBlock<Definition>;
  }

  // The first column of a codec block that is NaN or infinite, or -1. The usual block is settled by its
  // scales alone.
  static int not_finite(const uint8_t* block) {
    if constexpr (requires { Definition::plainly_finite(block); }) {
      if (Definition::plainly_finite(block)) return -1;
    }
    if constexpr (Codec::kInteger) {
      bool plain = true;
      for (int c = 0; c < kChunks; ++c) {
        IntChunk<Codec::kRuns, Codec::kRun> chunk;
        RowMajor::decode(RowMajor::load(Planes<1>{{block}}, c), c, chunk);
        for (int r = 0; r < Codec::kRuns; ++r)
          plain &= std::fabs(chunk.scale[r]) < 1e30f && std::fabs(chunk.offset[r]) < 1e30f;
      }
      if (plain) return -1;  // |scale * q| < 1.3e32
    }
    float values[Codec::kBlock];
    cpu::portable::block_to_float<Codec>(block, values);
    for (int i = 0; i < Codec::kBlock; ++i)
      if (!std::isfinite(values[i])) return i;
    return -1;
  }
};

}  // namespace apr
