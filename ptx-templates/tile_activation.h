// Activations on their way into a linear: RMS norm, 8-bit blocks, 16-bit terms. Device functions for one CTA;
// the norm and convert templates write the result to memory, the GEMV templates keep it in shared memory.
#pragma once

#include "apr_device.h"

namespace apr {

// Where one token's int8 activations lie in shared memory. 32 bytes of padding behind every 128 columns: then
// the 16-byte reads of eight lanes (columns 0, 16, 64, 80, 128, ... for a 4-bit superblock) and the 8-byte
// reads of sixteen (0, 8, 16, 24, 128, ... for a 6-bit one) fall into distinct banks.
template <bool kPadded>
APR_FN constexpr int padded_column(int column) {
  return kPadded ? column + (column >> 7) * 32 : column;
}

// The same for blocks of int8, of which each has a scale and a sum, 8 bytes: 16 bytes behind every 16 blocks.
template <bool kPadded>
APR_FN constexpr int padded_block(int block) {
  return kPadded ? block + (block >> 4) * 2 : block;
}

// Scale of a block of int8 and its inverse. No division: both are rounded products.
APR_DEV void block_scale(float amax, float& scale, float& inverse) {
  scale = amax * (1.0f / 127.0f);
  inverse = amax > 1e-30f ? __frcp_rn(amax) * 127.0f : 0.0f;
}

// Four columns of a lane become one quad of a block: four neighbouring lanes hold it. `sum` is scale * (sum
// of q). Every lane of the warp must call.
APR_DEV uint32_t quantize_quad(const float4& v, float& scale, float& sum) {
  const float amax = warp_max<4>(fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w))));
  float inverse;
  block_scale(amax, scale, inverse);
  const int a = __float2int_rn(v.x * inverse), b = __float2int_rn(v.y * inverse),
            c = __float2int_rn(v.z * inverse), d = __float2int_rn(v.w * inverse);
  int total = a + b + c + d;
  total += __shfl_xor_sync(kFull, total, 1);
  total += __shfl_xor_sync(kFull, total, 2);
  sum = scale * static_cast<float>(total);
  return (a & 255u) | (b & 255u) << 8 | (c & 255u) << 16 | static_cast<uint32_t>(d) << 24;
}

// One value a lane: half a warp holds a block. Writes block `block` of activations from lanes 0-15 and, when
// `both`, the one behind it from lanes 16-31. Every lane of the warp must call.
APR_DEV void write_blocks(float v, const ActInt8& y, uint64_t block, bool both) {
  float scale, inverse;
  block_scale(warp_max<kActBlock>(fabsf(v)), scale, inverse);
  const int q = __float2int_rn(v * inverse);
  int total = q;
#pragma unroll
  for (int d = 1; d < kActBlock; d *= 2) total += __shfl_xor_sync(kFull, total, d);
  const int lane = threadIdx.x % 32;
  if (lane >= kActBlock && !both) return;
  y.q[kActBlock * block + lane] = static_cast<int8_t>(q);
  if (lane % kActBlock == 0) {
    y.scale[block + lane / kActBlock] = scale;
    y.sum[block + lane / kActBlock] = scale * static_cast<float>(total);
  }
}

APR_DEV float4 times(const float4& a, const float4& b) {
  return {a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w};
}
APR_DEV float square_sum(const float4& v) { return v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w; }
APR_DEV float amax4(const float4& v) {
  return fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
}

// Four columns from `column`, zeros past kCols; rows of kCols floats are 16-byte aligned only when kCols is a
// multiple of 4.
template <int kCols>
APR_DEV float4 load_columns(const float* row, int column) {
  if constexpr (kCols % 4 == 0) {
    return column < kCols ? load4(row + column) : float4{0.0f, 0.0f, 0.0f, 0.0f};
  } else {
    float4 v;
    v.x = column < kCols ? row[column] : 0.0f;
    v.y = column + 1 < kCols ? row[column + 1] : 0.0f;
    v.z = column + 2 < kCols ? row[column + 2] : 0.0f;
    v.w = column + 3 < kCols ? row[column + 3] : 0.0f;
    return v;
  }
}

template <int kCols>
APR_DEV void store_columns(float* row, int column, const float4& v) {
  if constexpr (kCols % 4 == 0) {
    if (column < kCols) *reinterpret_cast<float4*>(row + column) = v;
  } else {
    if (column < kCols) row[column] = v.x;
    if (column + 1 < kCols) row[column + 1] = v.y;
    if (column + 2 < kCols) row[column + 2] = v.z;
    if (column + 3 < kCols) row[column + 3] = v.w;
  }
}

// The power of two that brings amax into [2^13, 2^14), the headroom of an f16 product's operands; 1 for amax
// = 0.
APR_DEV float half_scale(float amax) {
  if (!(amax > 0.0f) || amax > 3.0e38f) return 1.0f;
  const int exponent =
      static_cast<int>(__float_as_uint(amax) >> 23) - 127;  // floor(log2), -127 for subnormals
  const int shift = max_of(-126, min_of(126, 13 - exponent));
  return __uint_as_float(static_cast<uint32_t>(shift + 127) << 23);
}

// Sum over the CTA of one value per thread; `scratch` holds kThreads / 32 floats. Contains one barrier; the
// caller puts another before it uses scratch again.
template <int kThreads>
APR_DEV float cta_sum(float v, float* scratch) {
  v = warp_sum(v);
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
  __syncthreads();
  float total = 0.0f;
#pragma unroll
  for (int w = 0; w < kThreads / 32; ++w) total += scratch[w];
  return total;
}
template <int kThreads>
APR_DEV float cta_max(float v, float* scratch) {
  v = warp_max(v);
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
  __syncthreads();
  float largest = scratch[0];
#pragma unroll
  for (int w = 1; w < kThreads / 32; ++w) largest = fmaxf(largest, scratch[w]);
  return largest;
}

// Writes one row of activations in the form kOutput. `get(column)` gives four columns (zeros past the row);
// `factor` multiplies all of them. Rows of ActInt8 are padded to 32 columns, rows of ActHalf to 64.
template <int kOutput, int kThreads, int kCols, typename Get>
APR_DEV void write_activations(int row, float factor, float amax, const Get& get, float* y, const ActInt8& yq,
                               const ActHalf& yh) {
  constexpr int kPad = kOutput == kOutputInt8 ? 32 : kOutput == kOutputFloat ? 1 : 64;
  constexpr int kPadded = round_up(kCols, kPad);
  constexpr int kUnits = ceil_div(kPadded, 4);
  float half = 1.0f;
  if constexpr (kOutput == kOutputF16 || kOutput == kOutputF16x2) half = half_scale(amax);
  if constexpr (kPad == 64) {
    if (threadIdx.x == 0) yh.scale[row] = 1.0f / half;
  }
  for (int base = threadIdx.x & ~31; base < kUnits; base += kThreads) {
    const int unit = base + threadIdx.x % 32;
    const int column = 4 * unit;
    float4 v = get(column);
    v = {v.x * factor, v.y * factor, v.z * factor, v.w * factor};
    if constexpr (kOutput == kOutputFloat) {
      store_columns<kCols>(y + static_cast<uint64_t>(row) * kCols, column, v);
    } else if constexpr (kOutput == kOutputInt8) {
      float scale, sum;
      const uint32_t quad = quantize_quad(v, scale, sum);
      if (unit < kUnits) {
        *reinterpret_cast<uint32_t*>(yq.q + static_cast<uint64_t>(row) * kPadded + column) = quad;
        if (unit % 4 == 0) {
          yq.scale[static_cast<uint64_t>(row) * (kPadded / kActBlock) + unit / 4] = scale;
          yq.sum[static_cast<uint64_t>(row) * (kPadded / kActBlock) + unit / 4] = sum;
        }
      }
    } else if (unit < kUnits) {
      v = {v.x * half, v.y * half, v.z * half, v.w * half};
      const uint64_t at = static_cast<uint64_t>(row) * kPadded + column;
      if constexpr (kOutput == kOutputBf16x2) {
        const U2 hi = {pack_bf16(v.x, v.y), pack_bf16(v.z, v.w)};
        const U2 lo = {pack_bf16(v.x - bf16_lo(hi.x), v.y - bf16_hi(hi.x)),
                       pack_bf16(v.z - bf16_lo(hi.y), v.w - bf16_hi(hi.y))};
        *reinterpret_cast<U2*>(yh.term[0] + at) = hi;
        *reinterpret_cast<U2*>(yh.term[1] + at) = lo;
      } else {
        const U2 hi = {pack_f16(v.x, v.y), pack_f16(v.z, v.w)};
        *reinterpret_cast<U2*>(yh.term[0] + at) = hi;
        if constexpr (kOutput == kOutputF16x2) {
          const U2 lo = {pack_f16(v.x - f16_lo(hi.x), v.y - f16_hi(hi.x)),
                         pack_f16(v.z - f16_lo(hi.y), v.w - f16_hi(hi.y))};
          *reinterpret_cast<U2*>(yh.term[1] + at) = lo;
        }
      }
    }
  }
}

}  // namespace apr
