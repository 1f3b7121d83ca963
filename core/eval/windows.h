// How a text becomes the predictions that an evaluation counts. The text is tokenized once, and windows of `ctx` tokens are
// laid over it, each `stride` tokens after the one before. A window is a context of its own: its first token is replaced by
// BOS where the model begins texts with one. In each window the predictions after its first skip + 1 tokens or more count,
// that is those of tokens skip + 1 .. ctx - 1; what is left at the end of the text fills no window and is not looked at.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace apr {

struct WindowOptions {
  uint32_t ctx = 512;                   // tokens in a window, at least 2
  std::optional<uint32_t> stride;       // 1..ctx; default ctx
  std::optional<uint32_t> skip;         // 0..ctx-2; default_skip() without it
  std::optional<uint64_t> max_windows;  // of the text's beginning; at least 1
};

// Half a window; where windows overlap by half or more, so much that every token is counted once.
uint32_t default_skip(uint32_t ctx, uint32_t stride);

struct Windows {
  std::vector<int32_t> tokens;  // of the text, BOS first where the model adds it
  std::optional<int32_t> bos;   // put first in each window
  uint32_t ctx, stride, skip;
  uint64_t count;  // windows

  uint32_t scored() const { return ctx - 1 - skip; }  // predictions that count in a window
  uint64_t total() const { return count * scored(); }
  // Token i of window w, 0 <= i < ctx.
  int32_t token(uint64_t w, uint32_t i) const {
    return i == 0 && bos ? *bos : tokens[static_cast<size_t>(w * stride + i)];
  }
};

// Throws a usage error for options out of range, and an Error for a text that is shorter than one window.
Windows cut_windows(std::vector<int32_t> tokens, std::optional<int32_t> bos, const WindowOptions& options);

// One step for a session: tokens of one window, or whole windows as sequences 0, 1, ... side by side. Rows are the wanted
// tokens in batch order; over all steps they are in the order of windows, and of positions in a window.
struct EvalStep {
  std::vector<int32_t> tokens, positions, sequences;  // [n], as in apr_batch
  std::vector<uint8_t> want;                          // [n]
  std::vector<int32_t> targets;                       // [rows]: the token that really follows
  uint64_t first_row = 0;                             // of the evaluation: window * scored() + place in it
  uint64_t windows_done = 0;                          // whole windows when this step is done
};

// Windows that one step of n_batch tokens takes side by side; at least 1. A session needs as many sequences.
uint32_t windows_per_step(const Windows& windows, uint32_t n_batch);
// The steps that compute windows first .. first + windows_per_step() - 1 (fewer at the end): one step for several windows,
// or as many as one window needs. A window's last token is nowhere an input.
std::vector<EvalStep> steps_of(const Windows& windows, uint64_t first, uint32_t n_batch);

}  // namespace apr
