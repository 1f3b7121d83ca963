#include "formats.h"

#include <cmath>
#include <cstring>
#include <random>

namespace apr::test {
namespace {

// A block: scale [kBlock / kGroup], offset [kBlock / kGroup] when kOffset, q [kBlock].
template <int kBlock, int kGroup, bool kOffset>
struct IntFormat {
  static constexpr int kGroups = kBlock / kGroup;
  static constexpr int kBytes = 4 * kGroups * (kOffset ? 2 : 1) + kBlock;

  static void unpack_int(const void* row, uint64_t k0, uint64_t cols, int8_t* q, float* scale,
                         float* offset) {
    const uint8_t* p = static_cast<const uint8_t*>(row) + k0 / kBlock * kBytes;
    for (uint64_t k = 0; k < cols; k += kBlock, p += kBytes) {
      std::memcpy(scale + k / kGroup, p, 4 * kGroups);
      if (kOffset)
        std::memcpy(offset + k / kGroup, p + 4 * kGroups, 4 * kGroups);
      else
        std::memset(offset + k / kGroup, 0, 4 * kGroups);
      std::memcpy(q + k, p + kBytes - kBlock, kBlock);
    }
  }
  static void unpack_rows(const apr_cpu_unpack* a) {
    for (uint32_t r = 0; r < a->rows; ++r)
      unpack_int(static_cast<const uint8_t*>(a->w) + r * a->row_bytes, a->k0, a->cols, a->q + r * a->q_stride,
                 a->scale + r * a->scale_stride, a->offset + r * a->scale_stride);
  }
  static void unpack_float(const void* row, uint64_t k0, uint64_t cols, float* w) {
    std::vector<int8_t> q(cols);
    std::vector<float> scale(cols / kGroup), offset(cols / kGroup);
    unpack_int(row, k0, cols, q.data(), scale.data(), offset.data());
    for (uint64_t i = 0; i < cols; ++i)
      w[i] = scale[i / kGroup] * static_cast<float>(q[i]) + offset[i / kGroup];
  }
  static void dequantize(const void* src, uint64_t n_rows, uint64_t k, float* dst) {
    for (uint64_t n = 0; n < n_rows; ++n)
      unpack_float(static_cast<const uint8_t*>(src) + n * (k / kBlock * kBytes), 0, k, dst + n * k);
  }
  static void gemv_int(const apr_cpu_gemv* a) {
    std::vector<int8_t> q(a->k);
    std::vector<float> scale(a->k / kGroup), offset(a->k / kGroup);
    for (uint64_t n = 0; n < a->n; ++n) {
      unpack_int(static_cast<const uint8_t*>(a->w) + n * a->row_bytes, 0, a->k, q.data(), scale.data(),
                 offset.data());
      for (uint32_t m = 0; m < a->m; ++m) {
        const int8_t* x = a->q + m * a->x_stride;
        double sum = 0;
        for (uint64_t k = 0; k < a->k; k += 16) {
          int dot = 0;
          for (uint64_t i = k; i < k + 16; ++i) dot += q[i] * x[i];
          sum += double{scale[k / kGroup]} * a->scale[m * (a->x_stride / 32) + k / 32] * dot;
          sum += double{offset[k / kGroup]} * a->sum[m * (a->x_stride / 16) + k / 16];
        }
        a->y[m * a->y_stride + n] = static_cast<float>(sum);
      }
    }
  }
  static void gemv_float(const apr_cpu_gemv* a) {
    std::vector<float> w(a->k);
    for (uint64_t n = 0; n < a->n; ++n) {
      unpack_float(static_cast<const uint8_t*>(a->w) + n * a->row_bytes, 0, a->k, w.data());
      for (uint32_t m = 0; m < a->m; ++m) {
        double sum = 0;
        for (uint64_t i = 0; i < a->k; ++i) sum += double{w[i]} * a->x[m * a->x_stride + i];
        a->y[m * a->y_stride + n] = static_cast<float>(sum);
      }
    }
  }

  // The higher set lacks a kernel: that of the lower one serves.
  static constexpr apr_cpu_kernels kPortable = {sizeof(apr_cpu_kernels),
                                                APR_ISA_PORTABLE,
                                                "plain",
                                                gemv_int,
                                                gemv_float,
                                                unpack_int,
                                                unpack_float,
                                                nullptr};
  static constexpr apr_cpu_kernels kHigher = {sizeof(apr_cpu_kernels),
                                              APR_ISA_AVX2,
                                              "plain too",
                                              nullptr,
                                              gemv_float,
                                              unpack_int,
                                              nullptr,
                                              unpack_rows};
  static constexpr const apr_cpu_kernels* kSets[] = {&kPortable, &kHigher};
};

constexpr uint32_t kSize = sizeof(apr_quant_format);

template <class F>
constexpr apr_quant_format int_format(const char* name, uint32_t block, uint32_t group) {
  return {kSize, name,    "for tests",   -1,      block,    F::kBytes, 1,
          group, nullptr, F::dequantize, nullptr, F::kSets, 2,         nullptr};
}

void float_unpack(const void* row, uint64_t k0, uint64_t cols, float* w) {
  std::memcpy(w, static_cast<const uint8_t*>(row) + 4 * k0, 4 * cols);
}
void float_dequantize(const void* src, uint64_t n_rows, uint64_t k, float* dst) {
  std::memcpy(dst, src, 4 * n_rows * k);
}
void float_gemv(const apr_cpu_gemv* a) {
  for (uint64_t n = 0; n < a->n; ++n)
    for (uint32_t m = 0; m < a->m; ++m) {
      double sum = 0;
      for (uint64_t i = 0; i < a->k; ++i) {
        float w;
        std::memcpy(&w, static_cast<const uint8_t*>(a->w) + n * a->row_bytes + 4 * i, 4);
        sum += double{w} * a->x[m * a->x_stride + i];
      }
      a->y[m * a->y_stride + n] = static_cast<float>(sum);
    }
}
constexpr apr_cpu_kernels kFloatSet = {
    sizeof(apr_cpu_kernels), APR_ISA_PORTABLE, "plain", nullptr, float_gemv, nullptr, float_unpack, nullptr};
constexpr const apr_cpu_kernels* kFloatSets[] = {&kFloatSet};

}  // namespace

const apr_quant_format kFloat32 = {kSize, "test.float32", "for tests",      -1,      1,          4, 4,
                                   0,     nullptr,        float_dequantize, nullptr, kFloatSets, 1, nullptr};
const apr_quant_format kInt32 = int_format<IntFormat<64, 32, true>>("test.int-32", 64, 32);
const apr_quant_format kInt16 = int_format<IntFormat<32, 16, false>>("test.int-16", 32, 16);
const apr_quant_format kInt128 = int_format<IntFormat<256, 128, true>>("test.int-128", 256, 128);
const apr_quant_format kInt48 = int_format<IntFormat<48, 16, true>>("test.int-48", 48, 16);

Packed random_weights(const apr_quant_format& format, uint64_t n, uint64_t k, uint32_t seed, Range range) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0.0f, 1.0f / std::sqrt(static_cast<float>(k)));
  Packed w{&format, n, k, {}, std::vector<float>(n * k)};
  const uint64_t row_bytes = k / format.block_elements * format.block_bytes;
  w.bytes.resize(n * row_bytes);
  if (format.int_group == 0) {
    for (float& x : w.dense) x = normal(rng);
    std::memcpy(w.bytes.data(), w.dense.data(), w.bytes.size());
    return w;
  }
  int low = -127, high = 127;
  switch (range) {
    case Range::Bits4:
      low = 0, high = 15;
      break;
    case Range::Signed4:
      low = -8, high = 7;
      break;
    case Range::Bits6:
      low = -32, high = 31;
      break;
    case Range::Bits8:
      low = -128, high = 127;
      break;
  }
  std::uniform_int_distribution<int> q(low, high);
  const uint32_t groups = format.block_elements / format.int_group;
  const bool offsets = format.block_bytes == format.block_elements + 8 * groups;
  for (uint64_t at = 0; at < w.bytes.size(); at += format.block_bytes) {
    uint8_t* p = w.bytes.data() + at;
    for (uint32_t g = 0; g < groups; ++g) {
      // Some groups are all zero, and some scales far smaller than the rest.
      float scale = std::abs(normal(rng)) / static_cast<float>(high);
      if (rng() % 16 == 0) scale = rng() % 2 ? 0.0f : scale * 1e-6f;
      const float offset = -scale * static_cast<float>(high + low) / 2;
      std::memcpy(p + 4 * g, &scale, 4);
      if (offsets) std::memcpy(p + 4 * (groups + g), &offset, 4);
    }
    for (uint32_t i = 0; i < format.block_elements; ++i) {
      const int value =
          rng() % 8 == 0 ? (rng() % 2 ? low : high) : q(rng);  // edges more often than by chance
      p[format.block_bytes - format.block_elements + i] = static_cast<uint8_t>(static_cast<int8_t>(value));
    }
  }
  format.dequantize(w.bytes.data(), n, k, w.dense.data());
  return w;
}

Packed exact_weights(uint64_t n, uint64_t k, const std::vector<float>& dense) {
  Packed w{&kFloat32, n, k, std::vector<uint8_t>(4 * n * k), dense};
  std::memcpy(w.bytes.data(), dense.data(), w.bytes.size());
  return w;
}

IntRow take_apart(const Packed& w, uint64_t row) {
  const uint64_t groups = w.k / w.format->int_group;
  IntRow r{std::vector<int8_t>(w.k), std::vector<float>(groups), std::vector<float>(groups)};
  const uint64_t row_bytes = w.k / w.format->block_elements * w.format->block_bytes;
  w.format->cpu[0]->unpack_int(w.bytes.data() + row * row_bytes, 0, w.k, r.q.data(), r.scale.data(),
                               r.offset.data());
  return r;
}

}  // namespace apr::test
