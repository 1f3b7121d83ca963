/* A backend: computes plans on a kind of device.
 *
 * Order of calls: devices -> open -> load -> step ... -> unload -> close. A device may have several sessions, also of one
 * plan; all of them are used by one thread at a time, while different devices may be used by different threads. Handles
 * are opaque, made by open and load, and freed by close and unload, which accept null.
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
  char software[128];    /* what speeds depend on besides the device: driver, compiler, threads */
} apr_device_info;

/* Called from load, on the thread that called it. total may grow. */
typedef void (*apr_progress_fn)(void* user, const char* what, uint64_t done, uint64_t total);
/* level: 0 debug, 1 information, 2 warning. Called from any function of the session, on the caller's thread. */
typedef void (*apr_log_fn)(void* user, int level, const char* message);

typedef struct apr_device_options {
  uint32_t struct_size;
  uint32_t index;              /* of the device, as counted by `devices` */
  uint32_t threads;            /* CPU: worker threads, 0 = physical cores; others: threads for compilation */
  const apr_setting* settings; /* [n_settings]; documented by each backend */
  uint32_t n_settings;
  apr_log_fn log; /* [nullable] */
  void* log_user;
} apr_device_options;

/* ---- kernels and rules as data ----------------------------------------------------------------------------------------- */

/* One parameter of a kernel, with the values that a rule may give it. */
typedef struct apr_kernel_param {
  uint32_t struct_size;
  const char* name;      /* "rows" */
  const char* meaning;   /* one line */
  const int64_t* values; /* [n_values], ascending */
  const char* const*
      value_names; /* [n_values] [nullable]: how people write the values ("avx2"); null: as numbers */
  uint32_t n_values;
  int64_t
      preset; /* one of the values: what holds without a rule, unless the kernel knows better for a shape */
} apr_kernel_param;

/* A kernel that a backend can choose, before it is specialised. */
typedef struct apr_kernel_template {
  uint32_t struct_size;
  const char* name;           /* "gemv_int" */
  const char* op;             /* "linear", "attention": what a rule calls it */
  const char* view;           /* "int", "float": which form of activations it eats; "none" */
  const char* summary;        /* one line */
  const char* arch;           /* least architecture, "sm_80"; "" any */
  const char* origin;         /* a file, or "built in" */
  const char* hash;           /* of all that its code is made from: another hash, other code */
  uint32_t m_min, m_max;      /* tokens that it serves, inclusive; m_max 0: no bound */
  const char* const* layouts; /* [n_layouts] of weights that it reads, in order of preference */
  uint32_t n_layouts;
  const char* const* formats; /* [n_formats] weight formats that it is limited to; 0: any */
  uint32_t n_formats;
  const apr_kernel_param* const* params; /* [n_params] */
  uint32_t n_params;
} apr_kernel_template;

/* data is valid during the call. */
typedef void (*apr_kernel_template_fn)(void* user, const apr_kernel_template* kernel);

typedef struct apr_rule_value {
  const char* name; /* of a parameter */
  int64_t value;
} apr_rule_value;

/* Which kernel serves which tensors. Rules are tried in order for every kernel that a plan needs, and the first that
 * matches decides; what it leaves open, and what no rule matches, the backend decides. apr/rules.hpp says exactly when a
 * rule matches. A matching rule whose kernel cannot serve is an error of load (APR_INVALID) that names origin and tensor. */
typedef struct apr_kernel_rule {
  uint32_t struct_size;
  const char* origin; /* "profiles/h200.toml:12": for messages and apr_kernel_info.rule */
  const char* why;    /* for apr_kernel_info.reason, "" for none */
  const char* op;     /* [nullable], here and below: any */
  const char* qtype;  /* a format's name */
  const char* tensor; /* shell pattern over a tensor's name or its role */
  const char* role;   /* a tensor's role */
  const char* layout; /* of the weights; where this kernel decides it, they are laid out so */
  const char* arch;   /* as in apr_device_info.arch; "sm_90" is also "sm_90a" */
  uint32_t m[2];      /* least and most tokens, inclusive; {0, UINT32_MAX}: any */
  uint64_t n[2];      /* rows of the tensor */
  uint64_t k[2];      /* columns of the tensor */
  const char*
      kernel; /* [nullable]: the backend's choice; else a template, and the rule matches only what that is made for */
  const apr_rule_value* values; /* [n_values], of the template's parameters; only with a kernel */
  uint32_t n_values;
  uint32_t
      forced; /* 1: asked for by name. 0: a kernel that rounds activations is passed over in a precise session */
} apr_kernel_rule;

typedef struct apr_load_options {
  uint32_t struct_size;
  uint32_t n_ctx;           /* positions of the KV cache of each sequence */
  uint32_t n_sequences;     /* independent sequences, >= 1 */
  uint32_t n_batch;         /* most tokens in one step, >= 1 */
  uint32_t precise;         /* 1: float activations everywhere, the form that results are judged by */
  apr_progress_fn progress; /* [nullable] */
  void* progress_user;
  const apr_kernel_rule* const* rules; /* [n_rules], first match wins; read during load only */
  uint32_t n_rules;
  uint32_t n_top; /* candidates that a step gives on demand, at most n_vocab and APR_MAX_TOP; 0: none */
} apr_load_options;

#define APR_MAX_TOP 1024u

/* A token that may come next. */
typedef struct apr_candidate {
  float logit;
  int32_t token;
} apr_candidate;

#define APR_STEP_NO_GRAPH 1u /* run the same kernels one by one, without a captured graph */
/* A hint, for a batch of one token that wants its argmax alone: the next step will be that argmax at the next position of
 * the same sequence, and will want its argmax alone too. A backend may begin it before it is asked for. Results are the
 * same with and without the hint, whatever the next step turns out to be; a wrong hint costs up to one step's time. */
#define APR_STEP_GREEDY 2u

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
  float* logits; /* [n_wanted][n_vocab] [nullable] */
  int32_t*
      argmax; /* [n_wanted] [nullable]: index of the largest logit, the lowest index among equals; -1 for a NaN row */
  /* [n_wanted][n_top] [nullable]: the tokens with the largest logits, descending, equal ones by ascending index. The
   * tokens of a row with a NaN are -1, their logits NaN. */
  apr_candidate* top;
} apr_step_output;

/* data [rows][width] floats, valid during the call. A backend that fused a stage away does not report it. */
typedef void (*apr_tap_fn)(void* user, const char* stage, const float* data, uint32_t rows, uint32_t width);

/* What was chosen for one operation at load. Strings live as long as the session. */
typedef struct apr_kernel_info {
  uint32_t struct_size;
  const char* stage;   /* of the operation, or of the first of a fused group */
  const char* weight;  /* tensor name, "" for none */
  const char* format;  /* "q4_k", "" for none */
  const char* layout;  /* "row_major", "planar" */
  const char* kernel;  /* template or function */
  const char* config;  /* parameters, "rows=2 lanes=8" */
  const char* reason;  /* the rule that chose it */
  uint64_t bytes;      /* weight bytes that one launch reads of this tensor */
  double microseconds; /* of the last timed run, 0: not timed; a fused kernel's time is shared out by bytes */
  const char* op;      /* "linear" */
  const char* spec;    /* what was asked of the kernel; equal texts are equal demands */
  const char* rule;    /* origin of the rule that matched, "" for none */
  const char* rejected;  /* candidates that were not taken, a line each: "gemv_float: eats the float view" */
  uint64_t n, k;         /* of the tensor; of an operation without one: 0 and the columns that it works on */
  uint32_t m_min, m_max; /* numbers of tokens that it serves in this session, inclusive */
  uint32_t launch;       /* entries of one fused kernel have the same number */
} apr_kernel_info;

/* The code of one kernel. Strings live as long as the session; numbers are -1 where nobody knows. */
typedef struct apr_kernel_code {
  uint32_t struct_size;
  const char* function; /* what runs: a template's entry, or a function and the library that it is in */
  const char* isa;      /* "sm_90a", "avx512" */
  const char* source;   /* specialised source, "" for code that was built with the program */
  const char* assembly; /* PTX, "" for none */
  const char* compiler; /* what the compiler reported, "" for nothing */
  const char* key;      /* of the kernel cache, "" for none */
  int32_t registers;    /* of a thread */
  int32_t shared_bytes; /* of a CTA */
  int32_t spill_bytes;  /* of a thread: stores and loads together */
  int32_t threads;      /* of a CTA */
  int32_t ctas;         /* of a launch for m_max tokens */
} apr_kernel_code;

/* How one candidate did. */
typedef struct apr_measurement {
  uint32_t struct_size;
  apr_status status;   /* APR_OK, or why it could not be built or launched */
  char message[500];   /* then: the reason */
  char config[128];    /* the parameters in force, as in apr_kernel_info.config */
  double microseconds; /* of one launch, caches cold: median of the repetitions */
  double spread;       /* half the distance between the quartiles, in microseconds */
  double
      error; /* sum (result - reference)^2 / sum reference^2 against the session's own kernel; 0 for itself */
  uint64_t bytes; /* weight bytes that a launch reads */
} apr_measurement;

typedef struct apr_session_info {
  uint32_t struct_size;
  uint64_t weight_bytes; /* held or mapped for weights, in the layouts in use */
  uint64_t kv_bytes;
  uint64_t scratch_bytes;
  uint64_t
      token_bytes; /* packed weight bytes (as in the file) that one decode step reads; the floor of its time */
  uint64_t kv_token_bytes;        /* KV bytes that a decode step reads per position of context */
  uint32_t n_kernels;             /* for kernel() */
  uint64_t dispatches_after_load; /* choices by type or shape made after load: 0 */
  uint64_t compiles_after_load;   /* kernels compiled after load: 0 */
  double load_seconds;            /* whole load */
  double compile_seconds;         /* of it: compiling kernels */
  double upload_seconds;          /* of it: moving and laying out weights */
  uint32_t kernels_compiled;      /* built in this load */
  uint32_t kernels_cached;        /* taken from the cache */
  uint32_t n_graphs; /* captured ones that steps without APR_STEP_NO_GRAPH replay; 0: there are none */
} apr_session_info;

typedef enum apr_finding_level APR_INT32_VALUES {
  APR_FINDING_GOOD = 0,
  APR_FINDING_ABSENT =
      1, /* not here, and nothing says that it should be: no driver where there is no such device */
  APR_FINDING_PROBLEM = 2 /* wrong, or in the way of using a device that is here */
} apr_finding_level;

/* Something that a backend builds on. Strings are valid during the call. */
typedef struct apr_finding {
  uint32_t struct_size;
  apr_finding_level level;
  const char* what;   /* "driver", "compiler", "instruction sets" */
  const char* found;  /* name, version, place; or the reason */
  const char* advice; /* what a person should do, "" for nothing */
} apr_finding;

typedef void (*apr_finding_fn)(void* user, const apr_finding* finding);

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
  apr_status (*load)(apr_device* device, const apr_plan* plan, const apr_load_options* options,
                     apr_session** session, apr_error* error);
  void (*unload)(apr_session* session);
  /* Returns when the outputs are written. APR_INVALID leaves the session as it was; another failure may end its use. */
  apr_status (*step)(apr_session* session, const apr_batch* batch, apr_step_output* output, apr_error* error);
  /* From now on every step reports its stages (null: no more). Tapped steps are slower, with the same kernels. */
  apr_status (*tap)(apr_session* session, apr_tap_fn fn, void* user, apr_error* error);
  apr_status (*session_info)(apr_session* session, apr_session_info* info, apr_error* error);
  apr_status (*kernel)(apr_session* session, uint32_t index, apr_kernel_info* info, apr_error* error);

  /* From here on functions may be null.
   * The kernels that rules may name, one call of fn each; settings as for open. Needs no device. */
  apr_status (*templates)(const apr_setting* settings, uint32_t n_settings, apr_kernel_template_fn fn,
                          void* user, apr_error* error);
  /* The code of a kernel of the session; may compile it once more to learn what its compiler reports. */
  apr_status (*code)(apr_session* session, uint32_t index, apr_kernel_code* code, apr_error* error);
  /* Runs candidates for a kernel of the session on random activations, with every cache cold: over the weights of all
   * layers and copies in turn, or with the caches flushed in between. candidates[i] is read like a rule that matches (its kernel and
   * values; null: the session's own choice), and results[i] receives how it did. What the session has stored of sequences
   * is lost. APR_UNSUPPORTED for a kernel that cannot be run alone. */
  apr_status (*measure)(apr_session* session, uint32_t index, uint32_t repetitions,
                        const apr_kernel_rule* const* candidates, uint32_t n, apr_measurement* results,
                        apr_error* error);
  /* What this machine has of all that the backend builds on, one call of fn each, whether or not a device can be opened;
   * settings as for open. Opens drivers and compilers, and no device. */
  apr_status (*diagnose)(const apr_setting* settings, uint32_t n_settings, apr_finding_fn fn, void* user,
                         apr_error* error);
};

#ifdef __cplusplus
}
#endif
