// Mistral's models that are saved as "mistral3" (Ministral 3 and relatives): Llama's computation with yarn,
// and queries that grow with the position once it passes the original context.
#include "core/base/error.h"
#include "core/plan/architecture.h"
#include "core/plan/decoder.h"

namespace apr {

std::unique_ptr<Plan> build_mistral3(PlanBuilder& builder, const HyperParameters& read) {
  HyperParameters hyper = read;
  constexpr DecoderTraits kTraits = {.rope = APR_ROPE_ADJACENT,
                                     .qkv_bias_required = false,
                                     .qk_norm = false,
                                     .rope_factors = true,
                                     .sliding_window = true};
  // The queries at position p are scaled by 1 + s ln(1 + floor(p / original context)): 1 up to that context,
  // so a plan for no more than it is exact without the operation.
  const double temperature =
      builder.model().meta.get_float_or(hyper.arch + ".attention.temperature_scale", 0.0);
  const auto exact = static_cast<uint32_t>(hyper.rope.original_context);
  if (temperature != 0 && hyper.n_ctx_train > exact) {
    builder.note(fmt::format(
        "the context is limited to {} of the model's {} tokens: beyond, the model scales its queries by "
        "the position (attention.temperature_scale {}), which this program does not do",
        exact, hyper.n_ctx_train, temperature));
    hyper.n_ctx_train = exact;
  }
  return build_decoder(builder, hyper, kTraits);
}

}  // namespace apr
