/* A weight format: one packed representation of W[N,K], row by row, each row K / block_elements blocks.
 *
 * Everything here is stateless. Every function may be called from any number of threads at once, on disjoint outputs.
 * A C++ author fills this table from one codec with include/apr/format.hpp.
 */
#pragma once

#include "abi.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Instruction sets of hand-written and derived CPU kernels, in order of preference; the program picks the highest that
 * the processor has. APR_ISA_AVX512 means F, BW, VL, DQ, VNNI. */
typedef enum apr_isa APR_INT32_VALUES { APR_ISA_PORTABLE = 0, APR_ISA_AVX2 = 1, APR_ISA_AVX512 = 2 } apr_isa;

/* Activations as the CPU's integer kernels read them, and as floats. One row is one token.
 * Blocks of APR_ACT_BLOCK columns share a scale:  x[m][j] ~= scale[m][j / 32] * q[m][j],  q in [-127, 127].
 * k is padded with zeros to a multiple of APR_ACT_BLOCK. */
#define APR_ACT_BLOCK 32
#define APR_ACT_SUM 16
typedef struct apr_cpu_gemv {
  uint32_t struct_size;
  uint32_t m;    /* tokens, 1..APR_CPU_GEMV_MAX_M; each weight is decoded once and used for all of them */
  uint64_t n;    /* rows of W to compute */
  uint64_t k;    /* columns; a multiple of the format's block_elements */
  const void* w; /* first of the n rows, packed; aligned to 1 only: it may point into a mapped file */
  uint64_t row_bytes; /* from one row to the next */
  const float* x;     /* [m][x_stride] floats; for gemv_float */
  uint64_t x_stride;  /* in elements, also of q */
  const int8_t* q;    /* [m][x_stride]; for gemv_int; 64-byte aligned rows */
  const float* scale; /* [m][x_stride / 32] */
  const float*
      sum;  /* [m][x_stride / 16]: scale * (sum of q over 16 columns), what an offset is multiplied with */
  float* y; /* [m][y_stride]: y[i][j] = dot(x[i], w[j]); overwritten */
  uint64_t y_stride; /* in elements */
} apr_cpu_gemv;
#define APR_CPU_GEMV_MAX_M 4

/* Columns k0 .. k0+cols of some rows as int8, with one scale and one offset per int_group columns. */
typedef struct apr_cpu_unpack {
  uint32_t struct_size;
  uint32_t rows; /* 1 or more */
  const void* w; /* first of the rows, packed; aligned to 1 */
  uint64_t row_bytes;
  uint64_t k0, cols;     /* multiples of block_elements */
  int8_t* q;             /* [rows][q_stride] */
  uint64_t q_stride;     /* at least cols */
  float *scale, *offset; /* [rows][scale_stride] */
  uint64_t scale_stride; /* at least cols / int_group */
} apr_cpu_unpack;

/* Kernels for one instruction set. A null function means: use that of a lower set. */
typedef struct apr_cpu_kernels {
  uint32_t struct_size;
  apr_isa isa;
  const char* origin; /* "derived" or "hand-written": shown by `aprctl plugins` */
  /* Y = X W^T with int8 activations. Null for float codecs. */
  void (*gemv_int)(const apr_cpu_gemv* args);
  /* Y = X W^T with float activations. */
  void (*gemv_float)(const apr_cpu_gemv* args);
  /* Columns k0 .. k0+cols of one row as int8 with one scale and one offset per `int_group` columns:
   * w = scale[j / int_group] * q[j] + offset[j / int_group]. k0 and cols are multiples of block_elements.
   * Null for float codecs. */
  void (*unpack_int)(const void* row, uint64_t k0, uint64_t cols, int8_t* q, float* scale, float* offset);
  /* Columns k0 .. k0+cols of one row as floats; the same bits as dequantize. */
  void (*unpack_float)(const void* row, uint64_t k0, uint64_t cols, float* w);
  /* The numbers of unpack_int for several rows, for formats that decode rows side by side; else null. */
  void (*unpack_rows)(const apr_cpu_unpack* args);
} apr_cpu_kernels;

typedef enum apr_codec_kind APR_INT32_VALUES {
  APR_CODEC_INTEGER = 1, /* a chunk is packed int8 quads with a scale and an offset per run */
  APR_CODEC_FLOAT = 2    /* a chunk is floats */
} apr_codec_kind;

/* One way to lay a matrix out in device memory: `n_planes` arrays, plane p holding plane_bytes[p] bytes for each block,
 * blocks in row-major order, plane starts aligned to 256 bytes. Layout "row_major" has one plane: the file's bytes. */
typedef struct apr_layout {
  uint32_t struct_size;
  const char* name;            /* "row_major", "planar" */
  const char* cpp_type;        /* the layout's type inside the codec's text: "apr::Q4K::Planar" */
  uint32_t n_planes;           /* 1..APR_MAX_PLANES */
  const uint32_t* plane_bytes; /* [n_planes] bytes of one block */
  /* Takes n_blocks packed blocks apart; planes[p] receives n_blocks * plane_bytes[p] bytes; aligned to 1. Null: row_major. */
  void (*split)(const void* blocks, uint64_t n_blocks, uint8_t* const* planes);
} apr_layout;
#define APR_MAX_PLANES 4

/* The codec as data and as source: all that a device backend needs to specialise its kernels. */
typedef struct apr_codec {
  uint32_t struct_size;
  apr_codec_kind kind;
  const char* cpp_type; /* "apr::Q4K" */
  const char* source;   /* the text of codec.h; may include "apr/codec.h" and nothing else */
  uint32_t
      block; /* columns that one codec block covers: block_elements, or a multiple for formats of single elements */
  uint32_t block_bytes;             /* bytes of such a block in row_major */
  uint32_t runs;                    /* of a chunk */
  uint32_t run;                     /* consecutive columns of a run */
  const apr_layout* const* layouts; /* [n_layouts]; layouts[0] is row_major, the last is the preferred one */
  uint32_t n_layouts;
} apr_codec;

struct apr_quant_format {
  uint32_t struct_size;
  const char* name;        /* "q4_k"; a plugin's own format is "vendor.name" */
  const char* description; /* one line */
  int32_t gguf_type;       /* GGUF tensor type number, or -1 */
  uint32_t block_elements; /* columns of one block; K must be a multiple */
  uint32_t block_bytes;    /* bytes of one block in a file */
  uint32_t block_align;    /* power of two that divides block_bytes: what a device layout may promise */
  uint32_t
      int_group; /* columns that share one scale and offset: 16 or a multiple of 32; 0 for float codecs */

  /* src [n_rows][k] floats -> dst n_rows packed rows, aligned to 1. importance [k] [nullable]: weight of each column's
   * squared error. APR_INVALID for a NaN or infinity (the message names row and column). Null: cannot be written. */
  apr_status (*quantize)(const float* src, uint64_t n_rows, uint64_t k, const float* importance, void* dst,
                         apr_error* error);
  /* n_rows packed rows -> dst [n_rows][k]. Defined for every bit pattern; src is aligned to 1. */
  void (*dequantize)(const void* src, uint64_t n_rows, uint64_t k, float* dst);
  /* APR_INVALID when a block decodes to NaN or infinity, or breaks a rule of the format; the message names row and block. */
  apr_status (*validate)(const void* src, uint64_t n_rows, uint64_t k, apr_error* error);

  const apr_cpu_kernels* const* cpu; /* [n_cpu]; a portable set is required */
  uint32_t n_cpu;
  const apr_codec* codec; /* [nullable]: CPU only */
};

#ifdef __cplusplus
}
#endif
