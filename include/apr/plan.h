/* A plan: the whole computation of one step, as data. The program builds it from a model's architecture; a backend
 * gets all of it at once, so that it may fuse, reorder, and capture.
 *
 * Values are float matrices [M, width], M = tokens of the batch. Operations are in an order in which every input has
 * been computed; each value is written by exactly one operation. Everything a plan points to lives, unchanged, until the
 * sessions loaded from it are closed.
 */
#pragma once

#include "quant.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A weight matrix W[N,K], packed, bound to its format. */
typedef struct apr_weight {
  uint32_t struct_size;
  const char* name; /* "blk.0.attn_q.weight" */
  const char* role; /* "attn_q", "ffn_down", "output", "token_embd": the name without layer and suffix */
  int32_t layer;    /* -1 outside the layers */
  const apr_quant_format* format;
  uint64_t n;       /* rows = output features */
  uint64_t k;       /* columns = input features */
  const void* data; /* n rows of k / block_elements * block_bytes bytes; may be a read-only file mapping */
  uint64_t bytes;
} apr_weight;

/* A small vector that is always float: a norm's weight, a bias, rope's inverse frequencies. */
typedef struct apr_vector {
  uint32_t struct_size;
  const char* name;
  uint64_t n;
  const float* data; /* [n] */
} apr_vector;

typedef struct apr_value {
  uint32_t struct_size;
  uint32_t width; /* floats per token */
} apr_value;

typedef enum apr_op_kind APR_INT32_VALUES {
  /* out[m] = W[token m]: weight[0] is [vocab, width]. */
  APR_OP_EMBED = 1,
  /* out = in0 * rsqrt(mean(in0^2) + eps) * vector[0]. The width is n_heads groups of head_dim columns, each normalised by
   * itself with the same vector[0] [head_dim]; a whole-row norm has n_heads = 1. */
  APR_OP_RMS_NORM = 2,
  /* out = in0 * W^T + vector[0] (bias, -1: none). */
  APR_OP_LINEAR = 3,
  /* Rotary embedding on n_heads heads of head_dim: the first rope_dims columns of each head are pairs rotated by
   * position * vector[0][i] (inverse frequencies, [rope_dims / 2], long-context scaling already in them), scaled by `scale`.
   * Pair i is columns (2i, 2i+1) for APR_ROPE_ADJACENT and (i, i + rope_dims/2) for APR_ROPE_HALVES. */
  APR_OP_ROPE = 4,
  /* Causal attention. in0 = q [n_heads * head_dim], in1 = k, in2 = v [n_kv_heads * head_dim]. k and v are first stored
   * in the layer's cache at the token's position; then head h attends to positions p' <= p of its sequence (and, with
   * window > 0, p' > p - window) in KV head h / (n_heads / n_kv_heads), softmax(scale * q.k). */
  APR_OP_ATTENTION = 5,
  /* out = in0 + in1. */
  APR_OP_ADD = 6,
  /* out = silu(in0) * in1. */
  APR_OP_SWIGLU = 7
  /* Routed experts come as further kinds; a backend refuses a kind that it does not know with APR_UNSUPPORTED. */
} apr_op_kind;

typedef enum apr_rope_kind APR_INT32_VALUES {
  APR_ROPE_NONE = 0,
  APR_ROPE_ADJACENT = 1,
  APR_ROPE_HALVES = 2
} apr_rope_kind;

typedef struct apr_op {
  uint32_t struct_size;
  apr_op_kind kind;
  const char* stage; /* unique, the same in every backend: "blk.0.attn_q"; docs/architecture.md lists them */
  int32_t layer;     /* -1 outside the layers */
  int32_t in[4];     /* indices of values, -1: none */
  int32_t out;       /* index of a value */
  int32_t weight[2]; /* indices of weights, -1: none */
  int32_t vector[2]; /* indices of vectors, -1: none */
  uint32_t n_heads;
  uint32_t n_kv_heads;
  uint32_t head_dim;
  uint32_t rope_dims;
  apr_rope_kind rope;
  uint32_t window; /* attention: 0 = unlimited */
  float eps;       /* norm */
  float scale;     /* attention: of q.k; rope: of the rotated pair */
} apr_op;

typedef struct apr_plan {
  uint32_t struct_size;
  const char* arch;       /* "qwen2" */
  const char* model_name; /* for messages */
  uint32_t n_layers;
  uint32_t n_vocab;     /* width of the logits */
  uint32_t n_ctx_train; /* longest context the model was made for */
  const apr_weight* const* weights;
  uint32_t n_weights;
  const apr_vector* const* vectors;
  uint32_t n_vectors;
  const apr_value* const* values;
  uint32_t n_values;
  const apr_op* const* ops;
  uint32_t n_ops;
  uint32_t head_op; /* ops from this index on are needed only for tokens whose logits are wanted */
  int32_t logits;   /* the value [n_wanted, n_vocab] that a step returns */
} apr_plan;

#ifdef __cplusplus
}
#endif
