// What a kernel and its launcher agree on: the argument structs, the state that changes per step, the launch
// shape that a module carries, and the enumerators of the specialisation prelude. Included by the host
// compiler and by NVRTC.
//
// A template reads these from the prelude, namespace apr::spec (shapes are compile-time constants):
//   all        kArch (90), kSms (multiprocessors), kMaxShared (bytes of shared memory that a CTA may have)
//   linear     kM (GEMV: exact number of rows computed; GEMM: 0), kK, kSegments,
//              Segment0.. {Codec, Layout, kN, kBias}, using Segments = apr::SegmentList<Segment0, ...>;
//              kEpilogue, kNorm, kInput, kOutput
//   embed, weight_range   kK, kSegments = 1, Segment0, Segments; weight_range uses Segment0::kN
//   rms_norm   kM (0 = run time), kK (columns of one norm), kGroups (norms side by side in a row), kOutput
//   convert    kK, kOutput, kSwiglu (bool)
//   rope, rope_kv, attention   kM, kHeads, kKvHeads, kHeadDim, kRopeDims, kRopeKind, kQkNorm, kFused,
//              kWindow (0 = none); attention for a few tokens: kOutput (float or int8; left out: float)
//   swiglu, add, gather   kK (width)
//   argmax                kN (width)
//   top_k                 kN (width), kTopK
// and one constant per entry of its own [params].
//
// Rows. A value is float32 [rows][width]. A kernel with kM > 0 computes kM rows always; rows past the number
// in use hold old data and are computed for nothing, so buffers have at least 8 rows. Kernels that have side
// effects (the KV cache) and kernels with kM = 0 read the number of rows from the device.
//
// Alignment. Every array starts on 16 bytes. Rows that are read four floats at a time (kK or kHeadDim a
// multiple of 4) keep that: x_stride, q_stride and out_stride are multiples of 4 then.
#pragma once

#include "apr/codec.h"

namespace apr {

// Rows of logits that are computed at once: [rows][vocabulary] floats are 40 MB for 150,000 tokens.
constexpr int kHeadRows = 64;

// ---- the prelude's enumerators ----------------------------------------------------------------------------

enum Epilogue : int {
  kEpilogueNone = 0,  // y[s] = x W[s]^T (+ bias[s]) for each segment s
  // y[0] = residual + x W[0]^T (+ bias[0]); one segment; residual and y[0] may be the same
  kEpilogueResidual = 1,
  kEpilogueSwiglu = 2  // y[0] = silu(x W[0]^T) * (x W[1]^T); two segments of the same kN; biases added before
};

enum Input : int {
  kInputFloat = 0,   // LinearArgs::x
  kInputInt8 = 1,    // LinearArgs::xq (GEMV over the integer view)
  kInputF16 = 2,     // LinearArgs::xh (GEMM): one f16 term, W as one f16 term: for weights of at most 16 bits
  kInputBf16x2 = 3,  // two bf16 terms, W as two bf16 terms, three products: for weights of more than 16 bits
  kInputF16x2 = 4    // two f16 terms, W as one: more exact than kInputF16 at twice the work
};

enum Output : int {  // of rms_norm and convert, and of a linear with kEpilogueSwiglu
  kOutputFloat = 0,
  kOutputInt8 = 1,
  kOutputF16 = 2,     // ActHalf, one f16 term
  kOutputBf16x2 = 3,  // ActHalf, two bf16 terms: x = term[0] + term[1] to 16 bits
  kOutputF16x2 = 4    // ActHalf, two f16 terms: x * 2^n = term[0] + term[1] to 22 bits
};

enum RopeKind : int { kRopeNone = 0, kRopeAdjacent = 1, kRopeHalves = 2 };  // as apr_rope_kind

// Constants that a prelude may leave out: what it declares itself hides these.
namespace spec_defaults {
constexpr int kOutput = kOutputFloat;
}
namespace spec {
using namespace spec_defaults;
}

template <typename... S>
struct SegmentList;  // the prelude's `Segments`
template <typename S, typename... Rest>
struct SegmentList<S, Rest...> {
  template <int kIndex, typename Dummy = void>
  struct At {
    using type = typename SegmentList<Rest...>::template At<kIndex - 1>::type;
  };
  template <typename Dummy>
  struct At<0, Dummy> {
    using type = S;
  };
};

// ---- what a module says about its launch ------------------------------------------------------------------

constexpr uint32_t kLaunchPdl =
    1;  // the kernel executes griddepcontrol.wait before it touches what earlier kernels write:
        // launch it with the programmatic stream serialization attribute

// extern "C" __constant__ apr::LaunchShape apr_launch in every module.
struct LaunchShape {
  uint32_t grid_x, grid_y, grid_z;
  uint32_t block;          // threads of a CTA
  uint32_t shared_bytes;   // dynamic shared memory of a CTA
  uint32_t tile_m;         // 0: the grid is as given; else grid_y = ceil(rows in use / tile_m)
  uint32_t flags;          // kLaunch...
  uint32_t cluster_x;      // CTAs of a cluster, 1 = none
  uint32_t scratch_bytes;  // device memory for args.scratch: zeroed once at load, own to this kernel; kernels
                           // of one specialisation that run one after the other share it
  uint32_t ahead_bytes;    // of the next kernels' weights that this one asks the L2 for: args.ahead
};

#ifdef __CUDACC__
#define APR_ARGS_FN __device__ __forceinline__
#else
#define APR_ARGS_FN inline
#endif

// ---- device-resident state of a step ----------------------------------------------------------------------

// The host writes it, and the arrays that the args point to (tokens, positions, sequences, rows), in one copy
// per step.
struct StepState {
  int32_t m;         // tokens of the step
  int32_t n_wanted;  // rows whose logits are wanted
  int32_t pad[2];
};

// ---- operands ---------------------------------------------------------------------------------------------

struct Weight {
  const uint8_t* plane[4];  // [kN][kK / block][plane_bytes]; 256-byte aligned
};

// Weights that a later kernel reads first. They depend on nothing, so that a kernel with multiprocessors to
// spare can ask the L2 for them.
struct Ahead {
  const uint8_t* data;  // 256-byte aligned
  uint32_t bytes;       // 0: none
};
constexpr int kMaxAhead = 12;  // two kernels: planes of one matrix and of two

// Activations in 8 bits: x[m][j] ~= scale[m][j / 16] * q[m][j]. Kp = kK rounded up to 32, padded with zeros.
// Blocks are half as long as the CPU's: a kernel that makes results 16 at a time can quantise them, which
// spreads them better over multiprocessors (8,960 results are 4.2 blocks of 16 for each of 132, but 2.1 of
// 32), and the error is smaller.
constexpr int kActBlock = 16;
struct ActInt8 {
  int8_t* q;     // [M][Kp]
  float* scale;  // [M][Kp / kActBlock]: amax / 127
  float* sum;    // [M][Kp / kActBlock]: scale * (sum of q)
};

// Activations for tensor cores: x[m][j] ~= scale[m] * (term[0][m][j] + term[1][m][j]); term[1] is null for
// one term. f16 terms: scale is a power of two that brings the row's largest magnitude below 2^14, so no
// finite row overflows. bf16 terms: scale is 1. Kp = kK rounded up to 64, padded with zeros.
struct ActHalf {
  uint16_t* term[2];  // [M][Kp]
  float* scale;       // [M]
};

constexpr int kMaxSegments = 4;

struct LinearArgs {
  const int32_t* m;       // number of rows in use, on the device (&state->m or &state->n_wanted)
  const float* x;         // [M][kK]                     kInputFloat
  ActInt8 xq;             //                             kInputInt8
  ActHalf xh;             //                             kInputF16, kInputBf16x2, kInputF16x2
  const float* norm;      // [kK]                        kNorm
  const float* residual;  // [M][kN]                     kEpilogueResidual
  Weight w[kMaxSegments];
  const float* bias[kMaxSegments];  // [kN]             Segment::kBias
  float* y[kMaxSegments];           // [M][y_stride]
  uint32_t y_stride[kMaxSegments];  // floats from row to row; also residual's (of segment 0)
  float w_scale[kMaxSegments];      // GEMM, f16: power of two that W is multiplied with, so that its largest
      // magnitude is below 2^15 (weight_range measures it); 16 serves weights of
      // ordinary size. A SwiGLU pair uses w_scale[0] for both
  ActInt8 yq;  // kOutputInt8 (gemv_int with kEpilogueSwiglu): the result, quantised for the next linear,
               // instead of y
  float eps;
};

#if !defined(__CUDACC_RTC__)
// The literal PTX template writes these offsets as numbers.
static_assert(__builtin_offsetof(LinearArgs, x) == 8 && __builtin_offsetof(LinearArgs, residual) == 72 &&
                  __builtin_offsetof(LinearArgs, w) == 80 && __builtin_offsetof(LinearArgs, bias) == 208 &&
                  __builtin_offsetof(LinearArgs, y) == 240 &&
                  __builtin_offsetof(LinearArgs, y_stride) == 272 && sizeof(LinearArgs) == 336,
              "gemv_f32.ptx holds the offsets of LinearArgs");
#endif

struct EmbedArgs {
  const int32_t* m;
  const int32_t* tokens;  // [M]
  Weight w;
  float* y;  // [M][kK]
};

struct NormArgs {
  const int32_t* m;
  const float* x;       // [M][x_stride]; kGroups * kK columns are used
  const float* weight;  // [kK]
  float* y;             // [M][kGroups * kK]            kOutputFloat
  ActInt8 yq;           // kOutputInt8
  ActHalf yh;           // kOutputF16, kOutputBf16x2, kOutputF16x2
  uint32_t x_stride;
  float eps;
};

// convert: y = x, or with kSwiglu silu(x) * up, in another form: int8 blocks, 16-bit terms.
struct ConvertArgs {
  const int32_t* m;
  const float* x;   // [M][kK]
  const float* up;  // [M][kK], kSwiglu
  ActInt8 yq;
  ActHalf yh;
};

struct ElementwiseArgs {  // add: y = a + b; swiglu: y = silu(a) * b; gather: y[i] = a[rows[i]]
  const int32_t* m;
  const float* a;       // [M][kK]
  const float* b;       // [M][kK]
  const int32_t* rows;  // [M], gather
  float* y;             // [M][kK]
};

// One struct for rope, rope_kv and attention: a fused form needs all of it.
//   rope          q -> q_out: kHeads heads of one value, rotated
//   rope_kv       (norm and) rotate q -> q_out when kHeads > 0; (norm and) rotate k, store k and v in the
//   cache attention     with kFused (M = 1): raw q, k, v as the linear wrote them; norms, rotation and KV
//   append inside.
//                 else: q ready (rotated), k and v already in the cache
struct AttentionArgs {
  const StepState* state;
  const int32_t* positions;  // [M]
  const int32_t* sequences;  // [M]
  const float* q;            // [M][q_stride]
  const float* k;            // [M][k_stride]
  const float* v;            // [M][v_stride]
  uint32_t q_stride, k_stride, v_stride;
  uint32_t n_ctx;         // positions of one sequence in the cache
  const float* q_norm;    // [kHeadDim], kQkNorm
  const float* k_norm;    // [kHeadDim], kQkNorm
  const float* inv_freq;  // [kRopeDims / 2]
  float eps;              // of the norms
  float rope_scale;       // of a rotated pair
  float scale;            // of q.k
  uint32_t out_stride;
  uint16_t* k_cache;  // f16, this layer's [sequence][kKvHeads][n_ctx][kHeadDim]
  uint16_t* v_cache;
  float* q_out;            // [M][kHeads * kHeadDim]: rope, rope_kv
  float* out;              // [M][out_stride]: attention
  void* scratch;           // LaunchShape::scratch_bytes
  ActInt8 outq;            // kOutputInt8: the result, quantised for the next linear, instead of out
  Ahead ahead[kMaxAhead];  // attention: LaunchShape::ahead_bytes in all
};

// A decode step ends by writing the state of the one that continues it greedily, and its result to memory that
// the host watches: neither a copy nor a round trip through the host lies between two tokens.
struct Successor {
  int32_t* token;  // state of the step: becomes the result (0 for a NaN row: it must lie in the vocabulary)
  int32_t* position;  // state of the step: becomes one more
  int32_t*
      result;  // [2] in pinned memory of the host; entry position % 2 gets the result. Null: no successor

  // By one thread, when every earlier kernel of the step has ended.
  APR_ARGS_FN void begin(int32_t step_result) const {
    if (result == nullptr) return;
    *static_cast<volatile int32_t*>(result + *position % 2) = step_result;
    *token = step_result < 0 ? 0 : step_result;
    ++*position;
  }
};

struct ArgmaxArgs {
  const int32_t* m;
  const float* x;  // [M][kN]
  int32_t* index;  // [M]: largest value, lowest index among equals; -1 when the row has a NaN
  void* scratch;
  Successor next;  // of row 0
};

struct Candidate {  // as apr_candidate
  float value;
  int32_t index;
};

struct TopKArgs {
  const int32_t* m;  // at most kHeadRows
  const float* x;    // [M][kN]
  // [M][kTopK], descending, equals by ascending index; all NaN and -1 where the row has a NaN
  Candidate* best;
  void* scratch;
};

// read_bandwidth: reads everything, writes one number per thread that cannot be known beforehand.
struct BandwidthArgs {
  const uint8_t* data;  // 16-byte aligned
  uint64_t bytes;       // multiple of 16
  uint32_t* sink;       // [1]
};

// weight_range: the largest |w| of a matrix over its float view.
struct RangeArgs {
  Weight w;
  uint32_t* bits;  // [1]: float bits of the maximum (of non-negative floats, so atomicMax on bits orders
                   // them); start at 0
};

}  // namespace apr
