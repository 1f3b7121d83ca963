// Shapes of a generic kernel: what a specialised one knows at compile time, it reads from its module's constant apr_shape,
// which the launcher writes once after loading. Included by the host compiler and by NVRTC.
#pragma once

#include "apr/codec.h"

namespace apr {

struct GenericShape {
  int32_t k;       // input features; columns of one norm
  int32_t n;       // output features; vocabulary of argmax and top_k
  int32_t groups;  // norms side by side in a row
  int32_t heads;   // 0 in rope_kv: store k and v alone
  int32_t kv_heads;
  int32_t head_dim;  // at most 256
  int32_t rope_dims;
  int32_t rope_kind;  // RopeKind
  int32_t window;     // 0: unlimited
  int32_t bias;       // 1: the linear has one
  int32_t top_k;      // candidates of a row
  int32_t pad[5];
};

}  // namespace apr
