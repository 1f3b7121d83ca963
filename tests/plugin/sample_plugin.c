/* A plugin in plain C, right or wrong in one way: each VARIANT_... below is compiled to a library of its own.
 * The format is 32-bit floats under a name of its own. */
/* Some variants leave it out. */
#define APR_USED __attribute__((used))
#define _POSIX_C_SOURCE 200809L /* setenv */
#include <stdlib.h>
#include <string.h>

#include "apr/backend.h"
#include "apr/quant.h"

/* Leaves a trace when the library is opened, so that a test can see that scanning does not open it. */
__attribute__((constructor)) static void opened(void) { setenv("APR_TEST_SAMPLE_OPENED", "1", 1); }

#if defined(VARIANT_null_function)
#define DEQUANTIZE NULL
#else
#define DEQUANTIZE dequantize
static void dequantize(const void* src, uint64_t n_rows, uint64_t k, float* dst) {
  memcpy(dst, src, 4 * n_rows * k);
}
#endif

static apr_status validate(const void* src, uint64_t n_rows, uint64_t k, apr_error* error) {
  (void)src, (void)n_rows, (void)k, (void)error;
  return APR_OK;
}

static void gemv(const apr_cpu_gemv* args) {
  for (uint64_t i = 0; i < args->m; ++i) {
    for (uint64_t j = 0; j < args->n; ++j) {
      const float* w = (const float*)((const char*)args->w + j * args->row_bytes);
      float sum = 0;
      for (uint64_t c = 0; c < args->k; ++c) sum += args->x[i * args->x_stride + c] * w[c];
      args->y[i * args->y_stride + j] = sum;
    }
  }
}

static void unpack(const void* row, uint64_t k0, uint64_t cols, float* w) {
  memcpy(w, (const float*)row + k0, 4 * cols);
}

static const apr_cpu_kernels kPortable = {
    sizeof(apr_cpu_kernels), APR_ISA_PORTABLE, "derived", NULL, gemv, NULL, unpack, NULL};
static const apr_cpu_kernels* const kCpu[] = {&kPortable};

#if defined(VARIANT_geometry)
#define NAME "q4_k"
#define GGUF 12
#define ELEMENTS 256
#define BYTES 140
#else
#define NAME "sample.f32"
#define GGUF -1
#define ELEMENTS 1
#define BYTES 4
#endif

#if defined(VARIANT_short_format)
#define FORMAT_SIZE (sizeof(apr_quant_format) - 8)
#else
#define FORMAT_SIZE sizeof(apr_quant_format)
#endif

#if defined(VARIANT_undefined_symbol)
extern int no_library_has_this(void);
apr_status uses_it(void);
APR_EXPORT apr_status uses_it(void) { return (apr_status)no_library_has_this(); }
#endif

static const apr_quant_format kFormat = {
    FORMAT_SIZE, NAME, "floats, for tests", GGUF,     ELEMENTS, BYTES, 4,
    0,           NULL, DEQUANTIZE,          validate, kCpu,     1,     NULL};
APR_USED static const apr_quant_format* const kFormats[] = {&kFormat};

#if defined(VARIANT_wrong_major)
#define MAJOR (APR_ABI_MAJOR + 1)
#else
#define MAJOR APR_ABI_MAJOR
#endif
#if defined(VARIANT_newer_minor)
#define MINOR (APR_ABI_MINOR + 1)
#else
#define MINOR APR_ABI_MINOR
#endif
#if defined(VARIANT_short_entry)
#define ENTRY_SIZE (sizeof(apr_plugin) - 8)
#elif defined(VARIANT_tiny_entry)
#define ENTRY_SIZE 8
#else
#define ENTRY_SIZE sizeof(apr_plugin)
#endif

#if defined(VARIANT_function_entry)
/* The right name for the wrong thing. */
APR_EXPORT int apr_plugin_entry(void);
int apr_plugin_entry(void) { return kFormats[0] != NULL; }
#elif defined(VARIANT_small_entry)
APR_EXPORT const uint32_t apr_plugin_entry[4] = {sizeof(apr_plugin), APR_ABI_MAJOR, APR_ABI_MINOR, 0};
#elif defined(VARIANT_no_symbol)
APR_EXPORT const apr_plugin some_other_symbol = {ENTRY_SIZE,   MAJOR,    MINOR, "sample", "1.2.3",
                                                 "Apache-2.0", kFormats, 1,     NULL,     0};
#else
APR_PLUGIN_ENTRY = {ENTRY_SIZE, MAJOR, MINOR, "sample", "1.2.3", "Apache-2.0", kFormats, 1, NULL, 0};
#endif
