// Kernels that run on every processor.
#include "simd_portable.h"
#include "table.h"

namespace apr::cpu {
namespace {

// The panel keeps rows whole, [kPanelRows][blocks * 32]: compilers turn the dot product of two int8 rows into the base
// architecture's widening multiply-adds.
struct IntPortable {
  static PanelKind pack(const int8_t* q, uint32_t blocks, uint8_t* panel) {
    __builtin_memcpy(panel, q, static_cast<uint64_t>(kPanelRows) * blocks * kActBlock);
    return PanelKind::Signed;
  }

  static int32_t dot(const int8_t* a, const int8_t* b, uint32_t n) {
    int32_t sum = 0;
    for (uint32_t i = 0; i < n; ++i) sum += a[i] * b[i];
    return sum;
  }

  static void run(const GemmInt& g) {
    const IntPanel& p = *g.panel;
    const uint32_t cols = p.blocks * kActBlock, group = kActBlock / p.subs;
    for (uint32_t m = 0; m < g.m; ++m) {
      const int8_t* a = g.q + m * g.stride;
      const float* a_scale = g.scale + m * (g.stride / 32);
      const float* sums = p.subs == 1 ? g.sum32 + m * (g.stride / 32) : g.sum16 + m * (g.stride / 16);
      for (uint32_t n = 0; n < kPanelRows; ++n) {
        const auto* w = reinterpret_cast<const int8_t*>(p.w) + n * cols;
        float* c = g.c + m * kPanelRows + n;
        float total = g.accumulate ? *c : 0.0f;
        for (uint32_t s = 0; s < p.blocks * p.subs; ++s) {
          const auto product = static_cast<float>(dot(a + s * group, w + s * group, group));
          total += product * p.scale[s * kPanelRows + n] * a_scale[s / p.subs];
          if (p.offset) total += p.offset[s * kPanelRows + n] * sums[s];
        }
        *c = total;
      }
    }
  }
};

constexpr Kernels kTable = make_kernels<F32x4, IntPortable>(APR_ISA_PORTABLE, "portable");

}  // namespace

const Kernels& portable_kernels() { return kTable; }

}  // namespace apr::cpu
