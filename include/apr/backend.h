/* A backend: computes plans on a kind of device.
 *
 * Order of calls: devices -> open -> load (once per plan) -> step ... -> unload -> close. A device and its sessions are
 * used by one thread at a time; different devices may be used by different threads. Handles are opaque, made by open and
 * load, and freed by close and unload, which accept null.
 */
#pragma once

#include "plan.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct apr_device apr_device;
typedef struct apr_session apr_session;

typedef struct apr_device_info {
  uint32_t struct_size;
  char name[128];        /* "NVIDIA H200", the processor's model name */
  char detail[256];      /* driver and compiler versions, instruction sets */
  char arch[32];         /* "sm_90a", "avx512" */
  uint64_t memory_total; /* bytes */
  uint64_t memory_free;  /* bytes, at the time of the call */
  uint32_t units;        /* multiprocessors, physical cores */
} apr_device_info;

/* Called from load, on the thread that called it. total may grow. */
typedef void (*apr_progress_fn)(void* user, const char* what, uint64_t done, uint64_t total);
/* level: 0 debug, 1 information, 2 warning. Called from any function of the session, on the caller's thread. */
typedef void (*apr_log_fn)(void* user, int level, const char* message);

typedef struct apr_device_options {
  uint32_t struct_size;
  uint32_t index;               /* of the device, as counted by `devices` */
  uint32_t threads;             /* CPU: worker threads, 0 = physical cores; others: threads for compilation */
  const apr_setting* settings;  /* [n_settings]; documented by each backend */
  uint32_t n_settings;
  apr_log_fn log;               /* [nullable] */
  void* log_user;
} apr_device_options;

typedef struct apr_load_options {
  uint32_t struct_size;
  uint32_t n_ctx;       /* positions of the KV cache of each sequence */
  uint32_t n_sequences; /* independent sequences, >= 1 */
  uint32_t n_batch;     /* most tokens in one step, >= 1 */
  uint32_t precise;     /* 1: float activations everywhere, the form that results are judged by */
  apr_progress_fn progress; /* [nullable] */
  void* progress_user;
} apr_load_options;

#define APR_STEP_NO_GRAPH 1u /* run the same kernels one by one, without a captured graph */

/* Tokens of one step, in any mix of sequences. Within a sequence, positions of a batch are consecutive and ascending, and
 * the first one is at most the number of positions already stored: a lower one discards what followed it. */
typedef struct apr_batch {
  uint32_t struct_size;
  uint32_t n;               /* 1..n_batch */
  const int32_t* tokens;    /* [n] */
  const int32_t* positions; /* [n], 0..n_ctx-1 */
  const int32_t* sequences; /* [n], 0..n_sequences-1 */
  const uint8_t* want;      /* [n]: 1 = give this token's logits */
  uint32_t flags;           /* APR_STEP_... */
} apr_batch;

/* Rows are the wanted tokens in batch order. */
typedef struct apr_step_output {
  uint32_t struct_size;
  float* logits;   /* [n_wanted][n_vocab] [nullable] */
  int32_t* argmax; /* [n_wanted] [nullable]: index of the largest logit, the lowest index among equals; -1 for a NaN row */
} apr_step_output;

/* data [rows][width] floats, valid during the call. A backend that fused a stage away does not report it. */
typedef void (*apr_tap_fn)(void* user, const char* stage, const float* data, uint32_t rows, uint32_t width);

/* What was chosen for one operation at load. Strings live as long as the session. */
typedef struct apr_kernel_info {
  uint32_t struct_size;
  const char* stage;    /* of the operation, or of the first of a fused group */
  const char* weight;   /* tensor name, "" for none */
  const char* format;   /* "q4_k", "" for none */
  const char* layout;   /* "row_major", "planar" */
  const char* kernel;   /* template or function */
  const char* config;   /* parameters, "rows=2 lanes=8" */
  const char* reason;   /* the rule that chose it */
  uint64_t bytes;       /* weight bytes read per token in decode */
  double microseconds;  /* of the last timed run, 0: not timed */
} apr_kernel_info;

typedef struct apr_session_info {
  uint32_t struct_size;
  uint64_t weight_bytes;  /* held or mapped for weights, in the layouts in use */
  uint64_t kv_bytes;
  uint64_t scratch_bytes;
  uint64_t token_bytes;   /* packed weight bytes (as in the file) that one decode step reads; the floor of its time */
  uint64_t kv_token_bytes; /* KV bytes that a decode step reads per position of context */
  uint32_t n_kernels;     /* for kernel() */
  uint64_t dispatches_after_load; /* choices by type or shape made after load: 0 */
  uint64_t compiles_after_load;   /* kernels compiled after load: 0 */
  double load_seconds;    /* whole load */
  double compile_seconds; /* of it: compiling kernels */
  double upload_seconds;  /* of it: moving and laying out weights */
  uint32_t kernels_compiled; /* built in this load */
  uint32_t kernels_cached;   /* taken from the cache */
} apr_session_info;

struct apr_backend {
  uint32_t struct_size;
  const char* name; /* "cpu", "cuda" */
  const char* description;

  /* Number of usable devices in *count, 0 with APR_NO_DEVICE and the reason. */
  apr_status (*devices)(uint32_t* count, apr_error* error);
  apr_status (*open)(const apr_device_options* options, apr_device** device, apr_error* error);
  void (*close)(apr_device* device);
  apr_status (*device_info)(apr_device* device, apr_device_info* info, apr_error* error);
  /* Memory bandwidth that a read-only kernel reaches on this device, in 1e9 bytes per second; takes up to a second. */
  apr_status (*measure_bandwidth)(apr_device* device, double* gbs, apr_error* error);

  /* Binds every weight to a kernel, lays weights out, allocates everything. After it, a step allocates nothing, chooses
   * nothing by type, and compiles nothing. */
  apr_status (*load)(apr_device* device, const apr_plan* plan, const apr_load_options* options, apr_session** session,
                     apr_error* error);
  void (*unload)(apr_session* session);
  /* Returns when the outputs are written. */
  apr_status (*step)(apr_session* session, const apr_batch* batch, apr_step_output* output, apr_error* error);
  /* From now on every step reports its stages (null: no more). Tapped steps are slower, with the same kernels. */
  apr_status (*tap)(apr_session* session, apr_tap_fn fn, void* user, apr_error* error);
  apr_status (*session_info)(apr_session* session, apr_session_info* info, apr_error* error);
  apr_status (*kernel)(apr_session* session, uint32_t index, apr_kernel_info* info, apr_error* error);
};

#ifdef __cplusplus
}
#endif
