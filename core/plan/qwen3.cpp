// Qwen 3 (dense). Halves are rotated, each head of q and k is normalised first, and the head size is a key of
// its own, not embedding_length / head_count.
#include "core/plan/architecture.h"
#include "core/plan/decoder.h"

namespace apr {

std::unique_ptr<Plan> build_qwen3(PlanBuilder& builder, const HyperParameters& hyper) {
  constexpr DecoderTraits kTraits = {.rope = APR_ROPE_HALVES,
                                     .qkv_bias_required = false,
                                     .qk_norm = true,
                                     .rope_factors = false,
                                     .sliding_window = false};
  return build_decoder(builder, hyper, kTraits);
}

}  // namespace apr
