// Device helpers that every template may use: programmatic dependent launch, reductions, conversions,
// tensor-core and asynchronous-copy instructions. NVRTC has no host headers and not the runtime's functions,
// so these are inline PTX.
#pragma once

#include "args.h"

#define APR_DEV static __device__ __forceinline__

namespace apr {

constexpr unsigned kFull = 0xffffffffu;
constexpr int kWarp = 32;

// Every template has exactly one kernel and one launch shape, under these names.
#define APR_KERNEL(Args, threads, ctas) \
  extern "C" __global__ void __launch_bounds__(threads, ctas) apr_kernel(const __grid_constant__ Args args)
#define APR_LAUNCH extern "C" __constant__ apr::LaunchShape apr_launch

constexpr LaunchShape launch_shape(int grid_x, int grid_y, int grid_z, int block, int shared, int tile_m,
                                   uint32_t flags, int cluster_x, int scratch, int ahead = 0) {
  return {static_cast<uint32_t>(grid_x),
          static_cast<uint32_t>(grid_y),
          static_cast<uint32_t>(grid_z),
          static_cast<uint32_t>(block),
          static_cast<uint32_t>(shared),
          static_cast<uint32_t>(tile_m),
          flags,
          static_cast<uint32_t>(cluster_x),
          static_cast<uint32_t>(scratch),
          static_cast<uint32_t>(ahead)};
}
constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }
constexpr int round_up(int a, int b) { return (a + b - 1) / b * b; }
constexpr int min_of(int a, int b) { return a < b ? a : b; }
constexpr int max_of(int a, int b) { return a > b ? a : b; }

template <bool kFirst, typename A, typename B>
struct SelectType {
  using type = A;
};
template <typename A, typename B>
struct SelectType<false, A, B> {
  using type = B;
};

template <typename A, typename B>
struct Same {
  static constexpr bool value = false;
};
template <typename A>
struct Same<A, A> {
  static constexpr bool value = true;
};

// ---- programmatic dependent launch (sm_90): what runs before pdl_wait may touch weights, never an earlier
// kernel's results

APR_DEV void pdl_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
APR_DEV void pdl_launch() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// ---- where time goes: with APR_TRACE, nanoseconds at numbered points of each CTA (tools/gpu/trace.py reads
// them) ----------

#if defined(APR_TRACE)
extern "C" __device__ unsigned long long apr_trace[1024][8] = {};
#define APR_MARK(point)                                                      \
  do {                                                                       \
    if (threadIdx.x == 0) {                                                  \
      unsigned long long now_;                                               \
      asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now_)::"memory");      \
      apr_trace[(blockIdx.y * gridDim.x + blockIdx.x) % 1024][point] = now_; \
    }                                                                        \
  } while (0)
#else
#define APR_MARK(point)
#endif

// ---- warps ------------------------------------------------------------------------------------------------

// Sum over aligned groups of kLanes lanes; every lane of the group has the result.
template <int kLanes = 32>
APR_DEV float warp_sum(float v) {
#pragma unroll
  for (int d = kLanes / 2; d > 0; d /= 2) v += __shfl_xor_sync(kFull, v, d);
  return v;
}
template <int kLanes = 32>
APR_DEV float warp_max(float v) {
#pragma unroll
  for (int d = kLanes / 2; d > 0; d /= 2) v = fmaxf(v, __shfl_xor_sync(kFull, v, d));
  return v;
}

APR_DEV int dot4(uint32_t a, uint32_t b, int c) {
  int d;
  asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}

// A sum that began as kIntegerFloat as a float: exact below 2^22. It has become the float 1.5 * 2^23 + sum, and a
// subtraction costs half of a conversion.
constexpr int kIntegerFloat = 0x4b400000;
APR_DEV float integer_float(int d) { return __int_as_float(d) - 12582912.0f; }

APR_DEV float silu(float x) { return x / (1.0f + __expf(-x)); }

// ---- 16-bit floats ----------------------------------------------------------------------------------------

// {lo, hi} in one register, lo in the low half, round to nearest even.
APR_DEV uint32_t pack_f16(float lo, float hi) {
  uint32_t r;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
  return r;
}
APR_DEV uint32_t pack_bf16(float lo, float hi) {
  uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
  return r;
}
APR_DEV float f16_lo(uint32_t v) { return half_to_float(static_cast<uint16_t>(v)); }
APR_DEV float f16_hi(uint32_t v) { return half_to_float(static_cast<uint16_t>(v >> 16)); }
APR_DEV float bf16_lo(uint32_t v) { return __uint_as_float(v << 16); }
APR_DEV float bf16_hi(uint32_t v) { return __uint_as_float(v & 0xffff0000u); }
APR_DEV uint16_t to_f16(float x) { return static_cast<uint16_t>(pack_f16(x, 0.0f)); }

// ---- memory -----------------------------------------------------------------------------------------------

APR_DEV uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

// Data that other kernels of the step wrote: never through the read-only path, which a dependent launch may
// have filled before they wrote it.
APR_DEV float4 load4(const float* p) { return *reinterpret_cast<const float4*>(p); }

APR_DEV void copy_async16(uint32_t shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(global));
}
APR_DEV void copy_async_commit() { asm volatile("cp.async.commit_group;"); }
template <int kPending>
APR_DEV void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Asks for bytes to be brought into the L2: a hint, for what is read later. From the 16 bytes that hold `p`
// to those that hold the last byte.
APR_DEV void prefetch_l2(const uint8_t* p, uint32_t bytes) {
#if __CUDA_ARCH__ >= 900
  const uint64_t from = reinterpret_cast<uint64_t>(p) & ~15ull,
                 to = (reinterpret_cast<uint64_t>(p) + bytes + 15) & ~15ull;
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from),
               "r"(static_cast<uint32_t>(to - from)));
#endif
}

// This CTA's part of what `ctas` CTAs together ask the L2 for.
template <int kThreads>
APR_DEV void ask_ahead(const Ahead (&ranges)[kMaxAhead], uint32_t cta, uint32_t ctas) {
  constexpr uint32_t kPiece = 4096;
#pragma unroll 1
  for (int r = 0; r < kMaxAhead; ++r) {
    // Neighbouring pieces go to different multiprocessors.
    for (uint32_t at = (threadIdx.x * ctas + cta) * kPiece; at < ranges[r].bytes;
         at += kThreads * ctas * kPiece)
      prefetch_l2(ranges[r].data + at, min(kPiece, ranges[r].bytes - at));
  }
}

// ---- clusters (sm_90) -------------------------------------------------------------------------------------

APR_DEV void cluster_sync() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
#endif
}
// A float of another CTA's shared memory, at the address where it is in one's own.
APR_DEV float load_cluster(uint32_t shared, uint32_t rank) {
  float v = 0.0f;
#if __CUDA_ARCH__ >= 900
  uint32_t there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(shared), "r"(rank));
  asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(v) : "r"(there) : "memory");
#endif
  return v;
}

// ---- tensor cores -----------------------------------------------------------------------------------------

APR_DEV void load_matrix4(uint32_t (&r)[4], uint32_t shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared));
}
// d[16][8] += a[16][16] * b[8][16]^T
APR_DEV void mma_f16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
APR_DEV void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace apr
