// The decoder that Llama and its relatives share: norm, attention, residual, norm, gated feed-forward,
// residual. What distinguishes them is small and stands in DecoderTraits, one value for each architecture.
#pragma once

#include <memory>

#include "core/plan/builder.h"
#include "core/plan/hyper.h"

namespace apr {

struct DecoderTraits {
  apr_rope_kind rope;      // how the file's rows of q and k were laid out
  bool qkv_bias_required;  // biases are used wherever the file has them; here their lack is an error
  bool qk_norm;            // every head of q and k has an RMS norm before rope
  bool rope_factors;       // obeys tensor rope_freqs.weight (Llama 3's long-context scaling)
  bool sliding_window;     // obeys key attention.sliding_window, in every layer
};

// Stages, in order: embed; blk.N: attn_norm, attn_q, attn_k, attn_v, [attn_q_norm, attn_k_norm,] attn_q_rope,
// attn_k_rope, attn_out (the attention's result), attn_output (its projection), attn_residual, ffn_norm,
// ffn_gate, ffn_up, ffn_act, ffn_down, ffn_residual; output_norm, logits.
std::unique_ptr<Plan> build_decoder(PlanBuilder& builder, const HyperParameters& hyper,
                                    const DecoderTraits& traits);

}  // namespace apr
