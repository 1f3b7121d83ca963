// A program: the launches of one step for one class of batch sizes, as data. Lowering makes it from a plan without
// touching a device, so that it can be printed and tested anywhere; binding turns it into kernel arguments.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "apr/plan.h"
#include "plugins/backend-cuda/rules.h"
#include "plugins/backend-cuda/spec.h"

namespace apr::cuda {

// How a matrix of activations lies in device memory: see ActInt8 and ActHalf in ptx-templates/args.h.
enum class Form {
  Float,       // float32 [rows][width]
  Int8,        // 8-bit blocks with scales and sums
  F16,         // one f16 term
  Bf16x2,      // two bf16 terms
  F16x2,       // two f16 terms
  Token,       // int32 [rows]: the result of argmax
  Candidates,  // Candidate [rows][width]: the result of top_k
};

const char* to_string(Form form);

// One matrix of activations of a program.
struct Buffer {
  Form form;
  uint32_t width;      // columns
  int32_t value = -1;  // the plan's value that it holds, -1: a converted copy, which no tap sees
  // Where it lives. Arena: in the program's own memory, shared between buffers whose lives do not overlap.
  // Inlet: written before the program starts, by another program or a gather. Outlet: read after it ends.
  enum class Place { Arena, Inlet, Outlet } place = Place::Arena;
};

// One launch. Which members are used depends on spec.op; -1 = none. Buffers, vectors and weights by index.
struct Step {
  KernelSpec spec;
  std::string stage;                // of the first plan operation that it computes
  std::vector<uint32_t> ops;        // all plan operations that it computes, in plan order
  std::vector<int32_t> weights;     // of the plan, per segment
  std::vector<int32_t> biases;      // vectors of the plan, per segment
  std::vector<int32_t> outputs;     // buffers, per segment or one
  int32_t input[3] = {-1, -1, -1};  // buffers: x; a, b; q, k, v
  int32_t residual = -1;            // buffer
  int32_t norm[2] = {-1, -1};       // vectors: the norm's weight; q norm and k norm
  int32_t frequencies = -1;         // vector
  int32_t cache = -1;               // index of the KV cache: the plan's attention operations are counted
  float eps = 0, rope_scale = 1, scale = 1;
};

struct Program {
  uint32_t m = 0;     // rows: exact, or 0 = known at run time
  bool head = false;  // rows are wanted tokens, not tokens of the batch
  bool top = false;   // the last step finds candidates, and runs only where they are wanted
  std::vector<Buffer> buffers;
  std::vector<Step> steps;
};

// The KV cache of one attention operation.
struct CacheShape {
  uint32_t n_kv_heads;
  uint32_t head_dim;
};

struct LowerOptions {
  bool fuse = true;              // false: one kernel per plan operation
  bool precise = false;          // float view for every codec
  uint32_t n_top = 0;            // candidates of the head's last launch, 0: it has none
  const Rules* rules = nullptr;  // null: none; a rule's kernel may want another view of a weight
  Served served{};               // tokens of the program, for rules
};

// The form in which a GEMM over weights of this codec wants its activations.
Form gemm_input(const apr_codec& codec, const LowerOptions& options);

// Lowers the body (operations before plan.head_op) or the head. Throws Failure(APR_UNSUPPORTED) for an operation that it
// does not know and Failure(APR_INVALID) for a plan that contradicts itself.
Program lower(const apr_plan& plan, uint32_t m, bool head, const LowerOptions& options);

// Values that the body computes and the head reads.
std::vector<int32_t> crossing_values(const apr_plan& plan);
std::vector<CacheShape> cache_shapes(const apr_plan& plan);

// A listing for people and tests: a line per launch.
std::string describe(const Program& program);

// Bytes of a buffer for a number of rows, and where its parts begin.
struct BufferLayout {
  uint64_t part[3];  // Float, Token: {0}; Int8: q, scale, sum; halves: term 0, term 1, scale
  uint64_t bytes;    // a multiple of 256
};
BufferLayout buffer_layout(const Buffer& buffer, uint32_t rows);

// Offsets of the Arena buffers (others get UINT64_MAX) such that buffers whose lives overlap do not.
struct Arena {
  std::vector<uint64_t> offsets;
  uint64_t bytes;
};
Arena place_buffers(const Program& program, uint32_t rows);

}  // namespace apr::cuda
