// Regions of code for one instruction set, inside a file that is compiled for the baseline: a plugin needs no
// -m flags, and one library serves every x86-64 processor.
//
// Only templates, static and always_inline functions may stand in a region: a plain inline function compiled
// there could be the copy that the linker keeps for the whole library. Include nothing inside one.
//
// GCC contracts a * b + c to a fused multiply-add wherever the target has one, also through intrinsics. That
// would give other bits than the format's definition, so it is switched off with the region; clang contracts
// only within one expression, and apr::mul and apr::add are two. Kernels that want FMA ask for it by its
// intrinsic.
//
// Regions are optimised as -O3 does, whatever the build's level: at -O2 GCC 12 leaves loops over lanes scalar, and a derived
// GEMV takes eight times as long.
#pragma once

#if defined(__x86_64__)
#define APR_HAS_X86_KERNELS 1
#include <immintrin.h>
#else
#define APR_HAS_X86_KERNELS 0
#endif

#if defined(__clang__)
#define APR_REGION_PORTABLE_BEGIN static_assert(true, "")
#define APR_REGION_PORTABLE_END static_assert(true, "")
#define APR_REGION_AVX2_BEGIN \
  _Pragma("clang attribute push(__attribute__((target(\"avx2,fma,f16c\"))), apply_to = function)")
// One literal: _Pragma takes no concatenation.
// clang-format off
#define APR_REGION_AVX512_BEGIN \
  _Pragma("clang attribute push(__attribute__((target(\"avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni\"))), apply_to = function)")
// clang-format on
#define APR_REGION_END _Pragma("clang attribute pop")
#else
#define APR_REGION_PORTABLE_BEGIN _Pragma("GCC push_options") _Pragma("GCC optimize(\"fp-contract=off\")")
#define APR_REGION_PORTABLE_END _Pragma("GCC pop_options")
#define APR_REGION_AVX2_BEGIN                                                 \
  _Pragma("GCC push_options") _Pragma("GCC optimize(\"O3,fp-contract=off\")") \
      _Pragma("GCC target(\"avx2,fma,f16c\")") _Pragma("GCC diagnostic push") \
          _Pragma("GCC diagnostic ignored \"-Wmaybe-uninitialized\"")
#define APR_REGION_AVX512_BEGIN                                                              \
  _Pragma("GCC push_options") _Pragma("GCC optimize(\"O3,fp-contract=off\")")                \
      _Pragma("GCC target(\"avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni\")") \
          _Pragma("GCC diagnostic push") _Pragma("GCC diagnostic ignored \"-Wmaybe-uninitialized\"")
// GCC 12 finds its own _mm256_undefined_*() uninitialised (PR 105593).
#define APR_REGION_END _Pragma("GCC diagnostic pop") _Pragma("GCC pop_options")
#endif
