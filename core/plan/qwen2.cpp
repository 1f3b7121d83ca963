// Qwen 2 and 2.5. Halves are rotated, q, k and v have biases. Published files name a sliding window that the
// models do not use (use_sliding_window is false in their configurations, and llama.cpp does not read the
// key), so it is not obeyed.
#include "core/plan/architecture.h"
#include "core/plan/decoder.h"

namespace apr {

std::unique_ptr<Plan> build_qwen2(PlanBuilder& builder, const HyperParameters& hyper) {
  constexpr DecoderTraits kTraits = {.rope = APR_ROPE_HALVES,
                                     .qkv_bias_required = true,
                                     .qk_norm = false,
                                     .rope_factors = false,
                                     .sliding_window = false};
  return build_decoder(builder, hyper, kTraits);
}

}  // namespace apr
