/* The waist of apr: what a plugin and the program agree on. C11 and C++, no dependency.
 *
 * Rules that hold for every struct and function under include/apr/ unless a comment says otherwise:
 *  - A struct begins with struct_size = sizeof of the struct as its maker compiled it. Structs grow only at their end;
 *    a reader that finds a smaller size treats the missing members as null or zero, which mean "not supported".
 *  - Whoever makes a struct owns it and all that it points to. Static data of a plugin lives until the process ends: a
 *    library is opened once, by absolute path, with RTLD_NOW | RTLD_LOCAL, and never closed.
 *  - No exception, no allocation and no ownership crosses: results go to the caller's buffers, failures are a status and
 *    a message in the caller's apr_error. On failure the contents of output buffers are unspecified.
 *  - Strings are UTF-8, zero-terminated. Pointers are non-null unless marked [nullable].
 *  - Call order: the program reads apr_plugin_entry (data; no code runs), checks versions, sizes and geometry, and only
 *    then calls functions of the plugin.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define APR_EXTERN_C extern "C"
#else
#define APR_EXTERN_C extern
#endif

/* A plugin exports exactly one symbol, apr_plugin_entry; everything else should be hidden (-fvisibility=hidden). */
#define APR_EXPORT __attribute__((visibility("default")))

/* A plugin works with a program of the same major version and the same or a newer minor version. */
#define APR_ABI_MAJOR 1
#define APR_ABI_MINOR 0

/* Every int32 is a value of an enumeration of the ABI, as in C: a newer program or plugin may hand over one that this
 * side does not know. */
#ifdef __cplusplus
#define APR_INT32_VALUES : int32_t
#else
#define APR_INT32_VALUES
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum apr_status APR_INT32_VALUES {
  APR_OK = 0,
  APR_INVALID = 1,     /* the caller's data is wrong: a bad size, a damaged block, a position out of range */
  APR_UNSUPPORTED = 2, /* correct, but this plugin or device cannot do it */
  APR_NO_MEMORY = 3,   /* host or device memory */
  APR_NO_DEVICE = 4,   /* no driver, no device, or one that is too old: the message says which */
  APR_FAILED = 5       /* anything else; the message says what */
} apr_status;

/* The caller's buffer for a failure's text. The callee writes only when it returns something other than APR_OK, truncates
 * to fit and always terminates. */
typedef struct apr_error {
  uint32_t struct_size;
  char message[2044];
} apr_error;

/* One named setting that crosses the waist as text: a probe, an option. */
typedef struct apr_setting {
  const char* key; /* "kernel_cache", "no_graph": see the documentation of who reads it */
  const char*
      value; /* "1", "/path": an unknown key is ignored, a bad value is APR_INVALID with the good ones */
} apr_setting;

typedef struct apr_quant_format apr_quant_format; /* quant.h */
typedef struct apr_backend apr_backend;           /* backend.h */

/* What a plugin library is: exported as data, so that it can be examined before any of its code runs. */
typedef struct apr_plugin {
  uint32_t struct_size;
  uint32_t abi_major; /* APR_ABI_MAJOR as compiled */
  uint32_t abi_minor; /* APR_ABI_MINOR as compiled */
  const char* name;   /* as in plugin.toml */
  const char* version;
  const char* license;                    /* SPDX expression */
  const apr_quant_format* const* formats; /* [n_formats] [nullable when 0] */
  uint32_t n_formats;
  const apr_backend* const* backends; /* [n_backends] [nullable when 0] */
  uint32_t n_backends;
} apr_plugin;

#ifdef __cplusplus
}
#endif

/* Every plugin defines:  APR_PLUGIN_ENTRY = { sizeof(apr_plugin), APR_ABI_MAJOR, APR_ABI_MINOR, "name", ... };  */
#define APR_PLUGIN_SYMBOL "apr_plugin_entry"
#define APR_PLUGIN_ENTRY                                     \
  APR_EXTERN_C APR_EXPORT const apr_plugin apr_plugin_entry; \
  const apr_plugin apr_plugin_entry
