// Which predictions count, and that every one of them is computed once.
#include <doctest/doctest.h>

#include <numeric>
#include <vector>

#include "core/base/error.h"
#include "core/eval/windows.h"

using namespace apr;

namespace {

std::vector<int32_t> text(size_t n) {
  std::vector<int32_t> tokens(n);
  std::iota(tokens.begin(), tokens.end(), 1000);
  return tokens;
}

WindowOptions options(uint32_t ctx, std::optional<uint32_t> stride = {}, std::optional<uint32_t> skip = {}) {
  WindowOptions o;
  o.ctx = ctx, o.stride = stride, o.skip = skip;
  return o;
}

}  // namespace

TEST_CASE("windows are laid as documented") {
  const Windows plain = cut_windows(text(2100), 1, options(512));
  CHECK(plain.count == 4);  // 52 tokens are left over
  CHECK(plain.scored() == 255);
  CHECK(plain.token(0, 0) == 1);
  CHECK(plain.token(2, 0) == 1);
  CHECK(plain.token(2, 5) == 1000 + 2 * 512 + 5);
  CHECK(cut_windows(text(2100), {}, options(512)).token(2, 0) == 1000 + 1024);
  CHECK(cut_windows(text(512), 1, options(512)).count == 1);
  // Overlap: every token after the first window's skipped ones is counted once.
  const Windows half = cut_windows(text(2048), 1, options(512, 256)),
                quarter = cut_windows(text(2048), 1, options(512, 128));
  CHECK(half.scored() == 256);
  CHECK(half.count == 7);
  CHECK(quarter.scored() == 128);
  // Every token after BOS.
  const Windows whole = cut_windows(text(512 + 3 * 511), 1, options(512, 511, 0));
  CHECK(whole.count == 4);
  CHECK(whole.total() == 4 * 511);
  WindowOptions few = options(512);
  few.max_windows = 2;
  CHECK(cut_windows(text(5000), 1, few).count == 2);
}

TEST_CASE("what cannot be cut is an error that says why") {
  CHECK_THROWS_WITH_AS(cut_windows(text(511), 1, options(512)), doctest::Contains("511 tokens"), Error);
  CHECK_THROWS_WITH_AS(cut_windows({}, 1, options(512)), doctest::Contains("0 tokens"), Error);
  for (const WindowOptions& bad :
       {options(1), options(512, 0u), options(512, 513u), options(512, 512u, 511u)}) {
    try {
      cut_windows(text(5000), 1, bad);
      FAIL("no error");
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::Usage);
    }
  }
  for (uint32_t ctx = 2; ctx < 9; ++ctx)
    for (uint32_t stride = 1; stride <= ctx; ++stride)
      CHECK(cut_windows(text(64), 1, options(ctx, stride)).scored() >= 1);
}

TEST_CASE("steps cover every counted prediction once, in order, whatever the batch") {
  for (const auto& [ctx, stride, skip] :
       {std::tuple{16u, 16u, 8u}, {16u, 4u, 11u}, {16u, 15u, 0u}, {2u, 1u, 0u}}) {
    const Windows windows = cut_windows(text(100), 7, options(ctx, stride, skip));
    for (const uint32_t n_batch : {1u, 3u, 15u, 16u, 45u, 64u, 4096u}) {
      uint64_t row = 0, done = 0;
      const uint32_t side_by_side = windows_per_step(windows, n_batch);
      for (uint64_t w = 0; w < windows.count; w += side_by_side) {
        std::vector<int32_t> next(side_by_side, 0);  // position of each sequence: they begin anew
        const std::vector<EvalStep> steps = steps_of(windows, w, n_batch);
        for (const EvalStep& step : steps) {
          REQUIRE(step.tokens.size() >= 1);
          REQUIRE(step.tokens.size() <= n_batch);
          CHECK(step.first_row == row);
          size_t target = 0;
          for (size_t i = 0; i < step.tokens.size(); ++i) {
            const auto s = static_cast<size_t>(step.sequences[i]);
            REQUIRE(s < side_by_side);
            const auto p = static_cast<uint32_t>(step.positions[i]);
            CHECK(step.positions[i] == next[s]++);
            CHECK(step.tokens[i] == windows.token(w + s, p));
            CHECK((step.want[i] == 1) == (p >= skip));
            if (step.want[i] == 0) continue;
            CHECK(row == (w + s) * windows.scored() + (p - skip));
            CHECK(step.targets[target++] == windows.token(w + s, p + 1));
            ++row;
          }
          CHECK(target == step.targets.size());
          done = step.windows_done;
        }
        CHECK(done == std::min<uint64_t>(windows.count, w + side_by_side));
      }
      CHECK(row == windows.total());
    }
  }
}
