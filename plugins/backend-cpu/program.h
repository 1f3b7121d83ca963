// A plan turned into phases. All ops of a phase can run at the same time on different threads, and threads meet between
// phases:
//  - a Rows phase is a chain of operations that each look at one token: norms, rotary embedding, additions, quantisation of
//    activations, storing keys and values. A token's chain is one task.
//  - a Linear phase is all matrix products of one input (q, k and v; gate and up). A task is some rows of W; where gate and
//    up feed a SWIGLU, the task goes on to its columns and to their quantisation.
//  - an Attention phase is one attention op; a task is a KV head with some tokens, or with a part of the context.
#pragma once

#include <apr/plan.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "binding.h"
#include "kernels/kernels.h"
#include "memory.h"

namespace apr::cpu {

inline constexpr uint32_t kRowPadding =
    64;  // rows of products' inputs have zeros up to a multiple of so many columns
inline constexpr uint32_t kHeadRows = 64;  // wanted tokens whose logits are computed at a time
inline constexpr uint32_t kChunkKeys =
    256;  // attention: keys of a chunk, counted from position 0 of the sequence
inline constexpr uint32_t kBlockQueries = 32;  // attention: about so many query rows share a tile of keys
inline constexpr uint32_t kSplitTokens =
    8;  // attention: up to so many tokens, chunks may be tasks of their own

struct StepState;
struct RowOp;

// Floats of every token: row i is data + i * stride.
struct Value {
  uint32_t width = 0;
  uint64_t stride = 0;  // elements
  bool head = false;    // one row per wanted token instead of one per token
  float* data = nullptr;
  int32_t born = -1, last = -1;  // phases that write it and that read it last
  uint64_t offset = 0;           // bytes into the activations
};

// int8 form of a value, for integer kernels.
struct Quantized {
  const Value* value;
  bool head;
  uint64_t stride;
  int8_t* q;
  float *scale, *sum16, *sum32;
  int32_t *bias16, *bias32;
  int32_t born, last;
  uint64_t offset;

  QuantRow row(uint64_t i) const {
    const uint64_t blocks = stride / kActBlock;
    return {q + i * stride,     scale + i * blocks,      sum16 + i * blocks * 2,
            sum32 + i * blocks, bias16 + i * blocks * 2, bias32 + i * blocks};
  }
};

// What a row op reads. gather: the value has a row per token and the op runs on wanted tokens.
struct Input {
  const Value* value = nullptr;
  bool gather = false;
};

// Cosines and sines of every token of the step, shared by all rotary ops with the same frequencies.
struct RopeTable {
  const float* frequencies;
  uint32_t dims;
  float scale;
  float* data = nullptr;  // [n_batch][dims]: cos [dims / 2], sin [dims / 2]
};

// Keys and values of one attention op, binary16 or float, for each sequence and head: tiles of keys [head_dim][kTileKeys], rows
// of values [padded].
struct KvCache {
  uint32_t heads, head_dim, padded, positions, element_bytes;  // positions: a multiple of kTileKeys
  uint8_t *k = nullptr, *v = nullptr;
  uint64_t k_bytes(uint32_t sequences) const {
    return uint64_t{sequences} * heads * positions * head_dim * element_bytes;
  }
  uint64_t v_bytes(uint32_t sequences) const {
    return uint64_t{sequences} * heads * positions * padded * element_bytes;
  }
  uint8_t* keys(uint32_t sequence, uint32_t head) const {
    return k + k_bytes(1) * sequence + k_bytes(1) / heads * head;
  }
  uint8_t* values(uint32_t sequence, uint32_t head) const {
    return v + v_bytes(1) * sequence + v_bytes(1) / heads * head;
  }
};

using RowFn = void (*)(const RowOp& op, const StepState& state, uint32_t row);

struct RowOp {
  RowFn run;
  const char* kernel;  // for messages
  bool head;
  Input a, b;
  Value* out = nullptr;
  Quantized* quantized = nullptr;
  const BoundWeight* weight = nullptr;
  const float* vector = nullptr;
  RopeTable* rope = nullptr;
  KvCache* kv = nullptr;
  uint32_t heads = 0, head_dim = 0;
  float eps = 0;
};

struct LinearPart {
  const BoundWeight* weight = nullptr;
  const float* bias = nullptr;
  const Value* in = nullptr;             // float activations
  const Quantized* quantized = nullptr;  // or int8 ones
  Value* out = nullptr;
  uint32_t op = 0;  // index in the plan
};

// One matrix product, or two with a SWIGLU of their results.
struct LinearUnit {
  LinearPart part, up;
  Value* act = nullptr;  // of the SWIGLU; null: part alone
  Quantized* act_quantized = nullptr;
  uint32_t tile_rows = 0;   // rows of W that a task takes when there are few tokens
  uint64_t gemv_begin = 0;  // first task of this unit in the phase
  uint64_t gemm_begin = 0;
};

// Attention ops that cut a batch into blocks in the same way share the cutting.
struct TokenBlock {
  uint32_t begin, count;  // in StepState::order
  uint64_t first_task;
};
struct AttentionShape {
  uint32_t group, kv_heads;
  std::vector<TokenBlock> blocks;  // [n_batch] reserved
  bool split = false;              // tasks are chunks of the context
  uint64_t tasks = 0;
};

struct AttentionOp {
  Input q;
  Value* out;
  KvCache* kv;
  AttentionShape* shape;
  uint32_t heads;
  uint32_t window;
  float scale;
  uint32_t op;
};

enum class PhaseKind { Rows, Linear, Attention };

struct Phase {
  PhaseKind kind;
  bool head;
  std::vector<RowOp> rows;
  std::vector<LinearUnit> units;
  AttentionOp attention{};
  std::vector<uint32_t> ops;  // of the plan, for taps and timing
  uint64_t row_cost = 0;      // floats that a row's chain writes
  uint64_t gemv_tasks = 0, gemm_tasks = 0;
  double microseconds[2] = {};  // of the last step that ran it: with few tokens (GEMV), with many
};

struct ProgramOptions {
  const Chooser* chooser;
  bool precise;
  bool apart;  // every product is a phase of its own
  uint32_t n_ctx, n_sequences, n_batch;
};

// Everything about a plan that does not change between steps.
struct Program {
  std::vector<apr_op> ops;
  std::vector<std::unique_ptr<BoundWeight>> weights;  // null for weights that no op uses
  std::vector<std::unique_ptr<Value>> values;         // the plan's, then the program's own
  std::vector<std::unique_ptr<Quantized>> quantized;
  std::vector<std::unique_ptr<RopeTable>> ropes;
  std::vector<std::unique_ptr<KvCache>> caches;
  std::vector<std::unique_ptr<AttentionShape>> shapes;
  std::vector<Phase> phases;
  std::vector<int32_t> op_phase;  // [ops]
  uint32_t head_phase = 0;        // first phase that runs on wanted tokens only
  Value* logits = nullptr;
  uint32_t n_vocab = 0, n_tokens_known = 0;  // rows of the embedding
  uint64_t choices = 0;                      // kernels chosen by format

  uint32_t head_rows = 0;   // capacity of head values
  uint64_t k_step = 0;      // widest GEMM step of any weight
  uint32_t query_rows = 0;  // most query rows of an attention task
  uint32_t padded = 0;      // widest padded head
  Memory activations, kv, ropes_memory;
  Memory copied_weights;  // those that are not used where the caller has them
};

// Checks the plan and lays it out; allocates all memory that steps use. Throws Failure.
Program build_program(const apr_plan* plan, const ProgramOptions& options);

// Gives every unit of a Linear phase its tasks.
void number_tasks(Phase& phase);

// Offsets for values and quantised values, those that are never alive together overlapping; sets their pointers.
void allocate_activations(Program& program, uint32_t n_batch);

}  // namespace apr::cpu
