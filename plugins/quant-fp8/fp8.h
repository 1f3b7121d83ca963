// F8_E4M3 and F8_E5M2: 128 columns as 8-bit floats and one float32 scale, 8.25 bits per weight; a block is
// the 128 codes, then the scale. w = scale * value, rounded once. A file's scales for a tensor, a row or a
// block of 128 columns all come down to this. Source of the codes: OCP 8-bit Floating Point Specification
// (OFP8), revision 1.0, table 1,
// https://www.opencompute.org/documents/ocp-8-bit-floating-point-specification-ofp8-revision-1-0-2023-12-01-pdf-1
#pragma once

#include "apr/codec.h"

namespace apr {

// Sign, 4 bits of exponent (bias 7), 3 of mantissa: up to 448; no infinity, 0x7f and 0xff are NaN.
struct E4M3 {
  // The two lowest codes as IEEE halves, which hold every one exactly.
  APR_FN static uint32_t to_halves(uint32_t codes, float& factor) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
    uint32_t halves;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(static_cast<uint16_t>(codes)));
    factor = 1.0f;
    return halves;
#else
    // The fields in a half's places, whose exponent has a bias of 15: 2^8 too small, subnormals too.
    const uint32_t wide = pick_bytes(codes, 0u, 0x1404u);
    uint32_t halves = (wide & 0x80008000u) | (wide & 0x7f007f00u) >> 1;
    if ((wide & 0x7f00u) == 0x7f00u) halves |= 0x7fffu;
    if ((wide & 0x7f000000u) == 0x7f000000u) halves |= 0x7fff0000u;
    factor = 256.0f;
    return halves;
#endif
  }
};

// Sign, 5 bits of exponent, 2 of mantissa: the upper byte of an IEEE half, infinities and NaNs too.
struct E5M2 {
  APR_FN static uint32_t to_halves(uint32_t codes, float& factor) {
    factor = 1.0f;
    return pick_bytes(codes, 0u, 0x1404u);
  }
};

template <class Element>
struct ScaledFloat8 {
  static constexpr int kBlock = 128;
  static constexpr int kBytes = 132;
  static constexpr int kAlign = 4;
  static constexpr bool kInteger = false;
  static constexpr int kRuns = 1;
  static constexpr int kRun = 16;

  APR_FN static constexpr int col(int chunk, int) { return 16 * chunk; }

  struct Raw {
    uint32_t codes[4];
    float scale;
  };
  APR_FN static void unpack(const Raw& raw, FloatChunk<kRuns, kRun>& out) {
    for (int i = 0; i < kRun; i += 2) {
      float factor;  // a power of two: exact
      const uint32_t halves = Element::to_halves(raw.codes[i / 4] >> (8 * (i % 4)), factor);
      out.v[0][i] = mul(mul(half_to_float(static_cast<uint16_t>(halves)), factor), raw.scale);
      out.v[0][i + 1] = mul(mul(half_to_float(static_cast<uint16_t>(halves >> 16)), factor), raw.scale);
    }
  }

  struct RowMajor {
    static constexpr int kPlanes = 1;
    static constexpr int kPlaneBytes[kPlanes] = {kBytes};
    using Raw = ScaledFloat8::Raw;
    APR_FN static Raw load(const Planes<kPlanes>& block, int chunk) {
      Raw raw;
      load_words<4, kAlign>(block.p[0] + 16 * chunk, raw.codes);
      raw.scale = bits_to_float(apr::load<uint32_t>(block.p[0] + 128));
      return raw;
    }
    APR_FN static void decode(const Raw& raw, int, FloatChunk<kRuns, kRun>& out) { unpack(raw, out); }
  };

  // Codes; scales. A lane's loads are 16 and 4 bytes.
  struct Planar {
    static constexpr int kPlanes = 2;
    static constexpr int kPlaneBytes[kPlanes] = {128, 4};
    using Raw = ScaledFloat8::Raw;
    APR_FN static Raw load(const Planes<kPlanes>& block, int chunk) {
      Raw raw;
      load_words<4, 16>(block.p[0] + 16 * chunk, raw.codes);
      raw.scale = bits_to_float(apr::load<uint32_t>(block.p[1]));
      return raw;
    }
    APR_FN static void decode(const Raw& raw, int, FloatChunk<kRuns, kRun>& out) { unpack(raw, out); }
    static void split(const uint8_t* block, uint8_t* const* plane) {
      __builtin_memcpy(plane[0], block, 128);
      __builtin_memcpy(plane[1], block + 128, 4);
    }
  };
};

struct F8_E4M3 : ScaledFloat8<E4M3> {};
struct F8_E5M2 : ScaledFloat8<E5M2> {};

}  // namespace apr
