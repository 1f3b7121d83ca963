// Written from the definitions of the block types and their dequantize_row functions in ggml (ggml-common.h,
// ggml-quants.c, https://github.com/ggml-org/ggml).
#include "reference.h"

#include <cmath>
#include <cstring>

namespace apr::test {
namespace {

float half(const uint8_t* p) {
  const int bits = p[0] | p[1] << 8;
  const int exponent = (bits >> 10) & 31, mantissa = bits & 1023;
  float magnitude;
  if (exponent == 31) {
    magnitude = mantissa ? NAN : INFINITY;
  } else if (exponent == 0) {
    magnitude = std::ldexp(static_cast<float>(mantissa), -24);
  } else {
    magnitude = std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25);
  }
  return bits & 0x8000 ? -magnitude : magnitude;
}

void f32(const uint8_t* block, float* w) { std::memcpy(w, block, 4); }

void f16(const uint8_t* block, float* w) { *w = half(block); }

void bf16(const uint8_t* block, float* w) {
  const uint8_t bytes[4] = {0, 0, block[0], block[1]};
  std::memcpy(w, bytes, 4);
}

void q4_0(const uint8_t* block, float* w) {
  const float d = half(block);
  for (int j = 0; j < 16; ++j) {
    w[j] = static_cast<float>((block[2 + j] & 15) - 8) * d;
    w[j + 16] = static_cast<float>((block[2 + j] >> 4) - 8) * d;
  }
}

void q4_1(const uint8_t* block, float* w) {
  const float d = half(block), m = half(block + 2);
  for (int j = 0; j < 16; ++j) {
    const float low = static_cast<float>(block[4 + j] & 15) * d,
                high = static_cast<float>(block[4 + j] >> 4) * d;
    w[j] = low + m;
    w[j + 16] = high + m;
  }
}

// The fifth bit of column j of a q5_0 or q5_1 block.
int fifth(const uint8_t* qh, int j) { return (qh[j / 8] >> (j % 8)) & 1; }

void q5_0(const uint8_t* block, float* w) {
  const float d = half(block);
  for (int j = 0; j < 16; ++j) {
    w[j] = static_cast<float>(((block[6 + j] & 15) | fifth(block + 2, j) << 4) - 16) * d;
    w[j + 16] = static_cast<float>(((block[6 + j] >> 4) | fifth(block + 2, j + 16) << 4) - 16) * d;
  }
}

void q5_1(const uint8_t* block, float* w) {
  const float d = half(block), m = half(block + 2);
  for (int j = 0; j < 16; ++j) {
    const float low = static_cast<float>((block[8 + j] & 15) | fifth(block + 4, j) << 4) * d;
    const float high = static_cast<float>((block[8 + j] >> 4) | fifth(block + 4, j + 16) << 4) * d;
    w[j] = low + m;
    w[j + 16] = high + m;
  }
}

void q8_0(const uint8_t* block, float* w) {
  const float d = half(block);
  for (int j = 0; j < 32; ++j) w[j] = static_cast<float>(static_cast<int8_t>(block[2 + j])) * d;
}

void q2_k(const uint8_t* block, float* w) {
  const uint8_t *scales = block, *qs = block + 16;
  const float d = half(block + 80), dmin = half(block + 82);
  for (int column = 0; column < 256; ++column) {
    const int scale = scales[column / 16], shift = column % 128 / 32 * 2;
    const int q = (qs[column / 128 * 32 + column % 32] >> shift) & 3;
    const float dl = d * static_cast<float>(scale & 15), ml = dmin * static_cast<float>(scale >> 4);
    const float product = dl * static_cast<float>(q);
    w[column] = product - ml;
  }
}

void q3_k(const uint8_t* block, float* w) {
  const uint8_t *mask = block, *qs = block + 32, *packed = block + 96;
  const float d = half(block + 108);
  for (int column = 0; column < 256; ++column) {
    const int s = column / 16, shift = column % 128 / 32 * 2;
    const int low = s < 8 ? packed[s] & 15 : packed[s - 8] >> 4;
    const int scale = (low | ((packed[8 + s % 4] >> (s / 4 * 2)) & 3) << 4) - 32;
    const bool high = (mask[column % 32] >> (column / 32)) & 1;
    const int q = ((qs[column / 128 * 32 + column % 32] >> shift) & 3) - (high ? 0 : 4);
    const float dl = d * static_cast<float>(scale);
    w[column] = dl * static_cast<float>(q);
  }
}

void scale_min_k4(const uint8_t* packed, int s, int& scale, int& min) {
  if (s < 4) {
    scale = packed[s] & 63;
    min = packed[s + 4] & 63;
  } else {
    scale = (packed[s + 4] & 15) | (packed[s - 4] >> 6) << 4;
    min = (packed[s + 4] >> 4) | (packed[s] >> 6) << 4;
  }
}

void q4_k(const uint8_t* block, float* w) {
  const float d = half(block), dmin = half(block + 2);
  for (int column = 0; column < 256; ++column) {
    int scale, min;
    scale_min_k4(block + 4, column / 32, scale, min);
    const int q = (block[16 + column / 64 * 32 + column % 32] >> (column / 32 % 2 * 4)) & 15;
    const float d1 = d * static_cast<float>(scale), m1 = dmin * static_cast<float>(min);
    const float product = d1 * static_cast<float>(q);
    w[column] = product - m1;
  }
}

void q5_k(const uint8_t* block, float* w) {
  const float d = half(block), dmin = half(block + 2);
  for (int column = 0; column < 256; ++column) {
    int scale, min;
    scale_min_k4(block + 4, column / 32, scale, min);
    const int low = (block[48 + column / 64 * 32 + column % 32] >> (column / 32 % 2 * 4)) & 15;
    const int q = low | ((block[16 + column % 32] >> (column / 32)) & 1) << 4;
    const float d1 = d * static_cast<float>(scale), m1 = dmin * static_cast<float>(min);
    const float product = d1 * static_cast<float>(q);
    w[column] = product - m1;
  }
}

void q6_k(const uint8_t* block, float* w) {
  const uint8_t *ql = block, *qh = block + 128;
  const float d = half(block + 208);
  for (int column = 0; column < 256; ++column) {
    const int h = column / 128, l = column % 128;
    const int low = (ql[64 * h + l % 64] >> (l / 64 * 4)) & 15,
              high = (qh[32 * h + l % 32] >> (l / 32 * 2)) & 3;
    const float scale = d * static_cast<float>(static_cast<int8_t>(block[192 + column / 16]));
    w[column] = scale * static_cast<float>((low | high << 4) - 32);
  }
}

constexpr int kIq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

void iq4_nl(const uint8_t* block, float* w) {
  const float d = half(block);
  for (int j = 0; j < 16; ++j) {
    w[j] = d * static_cast<float>(kIq4[block[2 + j] & 15]);
    w[j + 16] = d * static_cast<float>(kIq4[block[2 + j] >> 4]);
  }
}

void iq4_xs(const uint8_t* block, float* w) {
  const float d = half(block);
  const int scales_h = block[2] | block[3] << 8;
  for (int b = 0; b < 8; ++b) {
    const int low = (block[4 + b / 2] >> (b % 2 * 4)) & 15;
    const float dl = d * static_cast<float>((low | ((scales_h >> (2 * b)) & 3) << 4) - 32);
    for (int j = 0; j < 16; ++j) {
      w[32 * b + j] = dl * static_cast<float>(kIq4[block[8 + 16 * b + j] & 15]);
      w[32 * b + j + 16] = dl * static_cast<float>(kIq4[block[8 + 16 * b + j] >> 4]);
    }
  }
}

// The values are doubled to be integers, so the scale is half of 2^(e - 127).
void mxfp4(const uint8_t* block, float* w) {
  constexpr int kValues[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
  const float d = std::ldexp(1.0f, block[0] - 128);
  for (int j = 0; j < 16; ++j) {
    w[j] = static_cast<float>(kValues[block[1 + j] & 15]) * d;
    w[j + 16] = static_cast<float>(kValues[block[1 + j] >> 4]) * d;
  }
}

// Codes with 1 sign, 7 - kMantissa exponent and kMantissa mantissa bits, then the float32 scale.
template <int kMantissa>
void scaled_f8(const uint8_t* block, float* w) {
  constexpr int kBias = (1 << (6 - kMantissa)) - 1, kTop = (1 << (7 - kMantissa)) - 1,
                kOnes = (1 << kMantissa) - 1;
  float scale;
  std::memcpy(&scale, block + 128, 4);
  for (int j = 0; j < 128; ++j) {
    const int exponent = (block[j] & 127) >> kMantissa, mantissa = block[j] & kOnes;
    float value = exponent == 0
                      ? std::ldexp(static_cast<float>(mantissa), 1 - kBias - kMantissa)
                      : std::ldexp(static_cast<float>(kOnes + 1 + mantissa), exponent - kBias - kMantissa);
    // E4M3 gives up infinity for range: only all ones are special.
    if (kMantissa == 3 && exponent == kTop && mantissa == kOnes) value = NAN;
    if (kMantissa == 2 && exponent == kTop) value = mantissa ? NAN : INFINITY;
    w[j] = (block[j] & 128 ? -value : value) * scale;
  }
}

}  // namespace

ReferenceBlock reference(const std::string& name) {
  constexpr struct {
    const char* name;
    ReferenceBlock block;
  } kAll[] = {{"f32", f32},
              {"f16", f16},
              {"bf16", bf16},
              {"q4_0", q4_0},
              {"q4_1", q4_1},
              {"q5_0", q5_0},
              {"q5_1", q5_1},
              {"q8_0", q8_0},
              {"q2_k", q2_k},
              {"q3_k", q3_k},
              {"q4_k", q4_k},
              {"q5_k", q5_k},
              {"q6_k", q6_k},
              {"iq4_nl", iq4_nl},
              {"iq4_xs", iq4_xs},
              {"mxfp4", mxfp4},
              {"f8_e4m3", scaled_f8<3>},
              {"f8_e5m2", scaled_f8<2>}};
  for (const auto& entry : kAll)
    if (name == entry.name) return entry.block;
  return nullptr;
}

}  // namespace apr::test
