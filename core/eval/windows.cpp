#include "core/eval/windows.h"

#include <algorithm>

#include "core/base/error.h"

namespace apr {

uint32_t default_skip(uint32_t ctx, uint32_t stride) {
  return stride <= ctx / 2 ? ctx - 1 - stride : ctx / 2 < ctx - 1 ? ctx / 2 : ctx - 2;
}

Windows cut_windows(std::vector<int32_t> tokens, std::optional<int32_t> bos, const WindowOptions& options) {
  if (options.ctx < 2)
    throw usage_error("a window of {} tokens predicts nothing; 2 is the least", options.ctx);
  const uint32_t stride = options.stride.value_or(options.ctx);
  if (stride == 0 || stride > options.ctx)
    throw usage_error("a stride of {} tokens: it must be from 1 to the window's {}", stride, options.ctx);
  const uint32_t skip = options.skip.value_or(default_skip(options.ctx, stride));
  if (skip > options.ctx - 2)
    throw usage_error("{} tokens without a prediction leave none of a window of {}; at most {}", skip,
                      options.ctx, options.ctx - 2);
  if (options.max_windows && *options.max_windows == 0) throw usage_error("0 windows: nothing to evaluate");
  if (tokens.size() < options.ctx)
    throw Error("the text has {} tokens and a window takes {}: use a longer text or a shorter window",
                tokens.size(), options.ctx);
  Windows windows{std::move(tokens), bos, options.ctx, stride, skip, 0};
  windows.count = (windows.tokens.size() - windows.ctx) / stride + 1;
  if (options.max_windows) windows.count = std::min(windows.count, *options.max_windows);
  return windows;
}

uint32_t windows_per_step(const Windows& windows, uint32_t n_batch) {
  const uint64_t fit = std::max<uint32_t>(1, n_batch / (windows.ctx - 1));
  return static_cast<uint32_t>(std::min(fit, windows.count));
}

std::vector<EvalStep> steps_of(const Windows& windows, uint64_t first, uint32_t n_batch) {
  const uint64_t n = std::min<uint64_t>(windows_per_step(windows, n_batch), windows.count - first);
  std::vector<EvalStep> steps(1);
  uint64_t row = first * windows.scored();
  steps.back().first_row = row;
  for (uint64_t w = 0; w < n; ++w) {
    for (uint32_t i = 0; i + 1 < windows.ctx; ++i) {
      if (steps.back().tokens.size() == n_batch) {
        steps.emplace_back();
        steps.back().first_row = row;
      }
      EvalStep& step = steps.back();
      step.tokens.push_back(windows.token(first + w, i));
      step.positions.push_back(static_cast<int32_t>(i));
      step.sequences.push_back(static_cast<int32_t>(w));
      const bool counts = i >= windows.skip;
      step.want.push_back(counts ? 1 : 0);
      if (!counts) continue;
      step.targets.push_back(windows.token(first + w, i + 1));
      ++row;
    }
  }
  for (EvalStep& step : steps) step.windows_done = first;
  steps.back().windows_done = first + n;
  return steps;
}

}  // namespace apr
