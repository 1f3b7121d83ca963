// The backend's own kernels for one instruction set, as a table: everything but the weight formats' kernels, which come
// with the formats. One table is chosen when a device is opened. No kernel allocates, and none looks at the number of
// threads: an output's bits depend on its inputs and on the instruction set alone.
#pragma once

#include <apr/quant.h>

#include <cstddef>
#include <cstdint>

namespace apr::cpu {

inline constexpr uint32_t kActBlock = APR_ACT_BLOCK;  // columns that share an activation scale
inline constexpr uint32_t kPanelRows = 32;            // rows of W in a GEMM panel
inline constexpr uint32_t kTileKeys = 32;             // keys that attention converts and scores at a time

// Where one row of int8 activations goes; every array belongs to that row.
struct QuantRow {
  int8_t* q;     // [stride]
  float* scale;  // [stride / 32]
  float* sum16;  // [stride / 16] scale * sum of q over 16 columns, what apr_cpu_gemv.sum is
  float* sum32;  // [stride / 32] the same over 32 columns
  int32_t*
      bias16;  // [stride / 16] -128 * sum of q over 16 columns: undoes the bias that makes weights unsigned
  int32_t* bias32;  // [stride / 32] the same over 32 columns
};

// How the int8 weights of a panel were made unsigned for instructions that multiply u8 by s8.
enum class PanelKind : uint32_t {
  Biased128,  // u = q + 128
  Biased32,   // u = q + 32, 0..63: two products fit int16
  Biased8,    // u = q + 8, 0..15: sixteen products fit int16
  Plain4,     // u = q, 0..15
  Signed      // as they are
};

// kPanelRows rows of W by `blocks` blocks of 32 columns, unpacked: what gemm_int multiplies with.
struct IntPanel {
  const uint8_t* w;  // [blocks * 8][32 rows][4 columns]
  PanelKind kind;
  uint32_t blocks;
  uint32_t subs;        // scales per block of 32 columns: 1, or 2 for groups of 16
  const float* scale;   // [blocks * subs][32 rows]
  const float* offset;  // the same shape; null: all are zero
};

struct GemmInt {
  const IntPanel* panel;
  uint32_t m;
  uint64_t stride;  // columns from one row of q to the next; the other arrays' strides follow from it
  const int8_t* q;  // first row, at the panel's first column; 4-byte aligned
  const float* scale;
  const float* sum16;
  const float* sum32;
  const int32_t* bias16;
  const int32_t* bias32;
  float* c;         // [m][kPanelRows], 64-byte aligned
  bool accumulate;  // add to c instead of overwriting it
};

struct GemmFloat {
  const float* w;  // [rows][w_stride], 64-byte aligned; columns padded with zeros to a multiple of 16
  uint64_t w_stride;
  uint32_t rows;  // a multiple of 4, at most kPanelRows
  uint64_t k;     // columns, a multiple of 16
  uint32_t m;
  const float* x;  // [m][x_stride], padded with zeros like w
  uint64_t x_stride;
  float* c;  // [m][kPanelRows]
  bool accumulate;
};

// One chunk of the context for some rows of queries that share a KV head. The head's keys lie in tiles of kTileKeys
// positions, column after column, [head_dim][kTileKeys], so that a vector holds one column of many keys; values lie row after
// row, [padded].
struct AttendChunk {
  uint32_t rows;
  uint32_t head_dim;
  uint32_t padded;  // head_dim rounded up to a multiple of 16
  bool half;        // k and v are binary16, otherwise float
  const void* k;
  const void* v;
  const int32_t* first;  // [rows] first key that a row may see
  const int32_t* last;   // [rows] last key that it may see
  int32_t begin, end;    // keys of this chunk; begin is a multiple of kTileKeys
  int32_t stored;        // keys that are worth reading ahead, those of this chunk and of the next ones
  const float* q;        // [rows][padded], scaled; 64-byte aligned like all that follows
  float* tile;           // workspace [2 * kTileKeys][padded]
  float* score;          // workspace [kScoreRows][kTileKeys]
  float* lanes;          // workspace [rows][kLanes]
  float* o;              // [rows][padded]: sum of exp(s - max) * v
  float* max;            // [rows] -inf when the row sees no key of the chunk
  float* sum;            // [rows] sum of exp(s - max)
};
inline constexpr uint32_t kScoreRows = 8;
inline constexpr uint32_t kLanes = 16;  // of the widest vector

struct Kernels {
  apr_isa isa;
  const char* name;

  // y = x * rsqrt(mean(x^2) + eps) * w, for each of `groups` groups of `width` columns, all with the same w [width].
  void (*rms_norm)(const float* x, const float* w, uint32_t groups, uint32_t width, float eps, float* y);
  void (*add)(const float* a, const float* b, uint64_t n, float* y);
  // y = gate / (1 + exp(-gate)) * up
  void (*swiglu)(const float* gate, const float* up, uint64_t n, float* y);
  // Heads of head_dim columns; the first `dims` of each are rotated, the rest copied. table: cos [dims / 2], sin [dims / 2].
  void (*rope_adjacent)(const float* x, const float* table, uint32_t heads, uint32_t head_dim, uint32_t dims,
                        float* y);
  void (*rope_halves)(const float* x, const float* table, uint32_t heads, uint32_t head_dim, uint32_t dims,
                      float* y);
  // Columns [begin, end) of a row of floats to int8; begin is a multiple of 32. Columns from end up to the next multiple of
  // 32 become zeros. A block with a NaN or an infinity, or too large for a finite scale, gets scale and sums of NaN, so that
  // it shows in every output; a block too small for its inverse scale to be finite becomes zero.
  void (*quantize)(const float* x, uint64_t begin, uint64_t end, const QuantRow& row);
  // Index of the largest element, the lowest among equals; -1 when one is NaN.
  int64_t (*argmax)(const float* x, uint64_t n);

  void (*to_half)(const float* x, uint64_t n,
                  uint16_t* y);  // nearest even; beyond 65504 + half a step: infinity
  void (*attend)(const AttendChunk& chunk);
  // (o, max, sum) of a row joins (to_o, to_max, to_sum).
  void (*attend_join)(const float* o, float max, float sum, uint32_t padded, float* to_o, float* to_max,
                      float* to_sum);
  void (*attend_finish)(const float* o, float sum, uint32_t n, float* y);  // y = o / sum

  // from [kPanelRows][stride] -> to [cols][kPanelRows], 64-byte aligned; false when all of it is zero.
  bool (*transpose)(const float* from, uint64_t stride, uint32_t cols, float* to);
  // The first n columns of c [m][kPanelRows], plus bias [n] unless that is null, to y [m][y_stride].
  void (*store_tile)(const float* c, uint32_t m, uint32_t n, const float* bias, float* y, uint64_t y_stride);
  // q [kPanelRows][blocks * 32] -> panel [blocks * 8][kPanelRows][4]; tells how.
  PanelKind (*pack)(const int8_t* q, uint32_t blocks, uint8_t* panel);
  void (*gemm_int)(const GemmInt& args);
  void (*gemm_float)(const GemmFloat& args);
};

const Kernels& portable_kernels();
const Kernels& avx2_kernels();    // x86 only
const Kernels& avx512_kernels();  // x86 only

}  // namespace apr::cpu
