// Llama 1 to 3 and the models that are saved as such, Mistral 7B among them. Converters permute the rows of q
// and k, so that the halves which the original code rotates lie side by side (gguf.md,
// "llama.tensor_data_layout"): adjacent pairs.
#include "core/plan/architecture.h"
#include "core/plan/decoder.h"

namespace apr {

std::unique_ptr<Plan> build_llama(PlanBuilder& builder, const HyperParameters& hyper) {
  constexpr DecoderTraits kTraits = {.rope = APR_ROPE_ADJACENT,
                                     .qkv_bias_required = false,
                                     .qk_norm = false,
                                     .rope_factors = true,
                                     .sliding_window = true};
  return build_decoder(builder, hyper, kTraits);
}

}  // namespace apr
