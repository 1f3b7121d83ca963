#include "plugins/backend-cuda/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <deque>
#include <span>

#include "plugins/backend-cuda/failure.h"

namespace apr::cuda {

void Session::check(const apr_batch& batch) {
  if (!broken_.empty())
    throw failure(APR_FAILED, "the session is unusable since an earlier failure: {}", broken_);
  if (batch.n == 0 || batch.n > n_batch_)
    throw failure(APR_INVALID, "a step of {} tokens; this session takes 1 to {}", batch.n, n_batch_);
  next_.assign(n_sequences_, -1);
  for (uint32_t i = 0; i < batch.n; ++i) {
    const int32_t token = batch.tokens[i], position = batch.positions[i], sequence = batch.sequences[i];
    if (token < 0 || static_cast<uint32_t>(token) >= plan_.n_vocab)
      throw failure(APR_INVALID, "token {} at index {} is outside the vocabulary of {}", token, i,
                    plan_.n_vocab);
    if (sequence < 0 || static_cast<uint32_t>(sequence) >= n_sequences_)
      throw failure(APR_INVALID, "sequence {} at index {}; this session has {}", sequence, i, n_sequences_);
    if (position < 0 || static_cast<uint32_t>(position) >= n_ctx_)
      throw failure(APR_INVALID, "position {} at index {} is outside the context of {}", position, i, n_ctx_);
    int64_t& expected = next_[static_cast<size_t>(sequence)];
    if (expected < 0 && static_cast<uint32_t>(position) > stored_[static_cast<size_t>(sequence)])
      throw failure(APR_INVALID, "sequence {} begins at position {}, but only {} are stored", sequence,
                    position, stored_[static_cast<size_t>(sequence)]);
    if (expected >= 0 && position != expected)
      throw failure(APR_INVALID, "sequence {}: position {} at index {} where {} is next", sequence, position,
                    i, expected);
    expected = int64_t{position} + 1;
  }
}

void Session::step(const apr_batch& batch, apr_step_output& output) {
  check(batch);
  if (output.top != nullptr && n_top_ == 0)
    throw failure(APR_INVALID, "candidates are wanted, but the session was loaded for none (n_top = 0)");
  wanted_.clear();
  for (uint32_t i = 0; i < batch.n; ++i)
    if (batch.want != nullptr && batch.want[i] != 0) wanted_.push_back(static_cast<int32_t>(i));
  try {
    if (batch.n == 1) {
      decode(batch, !wanted_.empty(), output);
    } else {
      drop_ahead();
      many(batch, output);
    }
  } catch (const std::exception& e) {
    broken_ = e.what();
    throw;
  }
  for (uint32_t i = 0; i < batch.n; ++i)
    stored_[static_cast<size_t>(batch.sequences[i])] = static_cast<uint32_t>(batch.positions[i]) + 1;
}

size_t Session::pick(const std::vector<Bound>& bounds, uint32_t rows) const {
  for (size_t i = 0; i < bounds.size(); ++i)
    if (bounds[i].program.m == 0 || bounds[i].program.m >= rows) return i;
  throw failure(APR_FAILED, "no program for {} rows", rows);
}

void Session::copy_state(const Bound& bound) {
  gpu_.driver().check(
      gpu_.driver().cuMemcpyHtoDAsync(states_.address() + bound.state, host_states_.at<char>(bound.state),
                                      bound.state_layout.bytes(), gpu_.stream()),
      "copying a step's state");
}

void Session::write_body_state(const Bound& body, const apr_batch& batch) {
  const StateLayout& layout = body.state_layout;
  host_states_.at<StepState>(body.state)->m = static_cast<int32_t>(batch.n);
  // Rows past the batch repeat its last token: kernels for an exact number of rows compute them too.
  for (uint32_t i = 0; i < layout.rows; ++i) {
    const uint32_t from = std::min(i, batch.n - 1);
    host_states_.at<int32_t>(body.state + layout.tokens())[i] = batch.tokens[from];
    host_states_.at<int32_t>(body.state + layout.positions())[i] = batch.positions[from];
    host_states_.at<int32_t>(body.state + layout.sequences())[i] = batch.sequences[from];
  }
}

void Session::write_head_state(const Bound& head, const int32_t* rows, uint32_t n) {
  host_states_.at<StepState>(head.state)->n_wanted = static_cast<int32_t>(n);
  int32_t* selected = host_states_.at<int32_t>(head.state + head.state_layout.selected());
  for (uint32_t i = 0; i < head.state_layout.rows; ++i) selected[i] = rows[std::min(i, n - 1)];
  copy_state(head);
}

void Session::copy_results(uint32_t rows, bool logits) {
  const Driver& d = gpu_.driver();
  d.check(d.cuMemcpyDtoHAsync(host_tokens_.at<char>(), tokens_.address(), uint64_t{rows} * 4, gpu_.stream()),
          "copying tokens");
  if (logits)
    d.check(d.cuMemcpyDtoHAsync(host_logits_.at<char>(), logits_.address(),
                                uint64_t{rows} * plan_.n_vocab * 4, gpu_.stream()),
            "copying logits");
}

void Session::give_candidates(uint32_t rows, apr_candidate* to) const {
  static_assert(sizeof(apr_candidate) == sizeof(Candidate) &&
                offsetof(apr_candidate, token) == offsetof(Candidate, index));
  const auto* from = host_candidates_.at<apr_candidate>();
  const size_t found = heads_.back().program.buffers.back().width;
  for (uint32_t r = 0; r < rows; ++r) std::copy_n(from + r * found, n_top_, to + size_t{r} * n_top_);
}

void Session::run(const Bound& bound, uint32_t rows, bool after_kernel, bool top) {
  const size_t n_launches = bound.launches.size() - (bound.program.top && !top ? 1 : 0);
  if (device_.settings.time_kernels) {
    launch_timed(bound, rows, n_launches);
    return;
  }
  for (const Launch& launch : std::span(bound.launches).first(n_launches)) {
    launch.kernel->launch(gpu_, address(launch.args), rows, after_kernel);
    after_kernel = true;
    if (tap_ != nullptr && loaded_) report(launch, rows);
  }
}

void Session::report(const Launch& launch, uint32_t rows) {
  for (const Launch::Tap& tap : launch.taps) {
    std::vector<float> data(size_t{rows} * tap.width);
    gpu_.driver().check(
        gpu_.driver().cuMemcpyDtoHAsync(data.data(), tap.data, data.size() * 4, gpu_.stream()),
        "copying a stage");
    gpu_.synchronize();
    tap_(tap_user_, tap.stage.c_str(), data.data(), rows, tap.width);
  }
}

void Session::launch_timed(const Bound& bound, uint32_t rows, size_t n_launches) {
  std::deque<Event> events;
  for (size_t i = 0; i <= n_launches; ++i) events.emplace_back(gpu_);
  events[0].record();
  for (size_t i = 0; i < n_launches; ++i) {
    // Without overlap: an event between two kernels keeps them apart anyway.
    bound.launches[i].kernel->launch(gpu_, address(bound.launches[i].args), rows, false);
    events[i + 1].record();
  }
  gpu_.synchronize();
  for (size_t i = 0; i < n_launches; ++i) {
    const double microseconds = events[i].until(events[i + 1]);
    // Shared out by the bytes that each weight of a fused kernel has.
    const std::vector<size_t>& entries = bound.launches[i].explained;
    uint64_t bytes = 0;
    for (const size_t entry : entries) bytes += explained_[entry].bytes;
    for (const size_t entry : entries)
      explained_[entry].microseconds =
          microseconds *
          (bytes == 0 ? 1.0 : static_cast<double>(explained_[entry].bytes) / static_cast<double>(bytes));
    if (tap_ != nullptr && loaded_) report(bound.launches[i], rows);
  }
}

// ---- one token ---------------------------------------------------------------------------------------------------------

// All that the stream does in a decode step; the same calls make the graphs.
void Session::decode_work(bool continues, Leaves leaves) {
  if (!continues) copy_state(bodies_[0]);
  run(bodies_[0], 1, false, false);
  if (leaves == Leaves::Nothing) return;
  const bool top = leaves == Leaves::Candidates || leaves == Leaves::Logits;
  run(heads_[0], 1, true, top);  // argmax leaves the result in host_results_, and the state of the step after
  if (leaves == Leaves::Logits) copy_results(1, true);
}

// The next step of greedy decoding is queued while this one runs: the device goes from one to the other without the host.
void Session::begin_ahead(int32_t position, int32_t sequence) {
  host_results_.at<int32_t>()[position % 2] = kNoResult;
  gpu_.driver().check(gpu_.driver().cuGraphLaunch(continuation_, gpu_.stream()),
                      "launching the graph of a step");
  ahead_ = {kNoResult, position, sequence};
}

// It was not asked for after all. Its row of the cache counts as not stored; its result must not be taken for another's.
void Session::drop_ahead() {
  if (!ahead_) return;
  ahead_.reset();
  gpu_.synchronize();
}

int32_t Session::await_result(int32_t position) {
  const std::atomic_ref<int32_t> result(host_results_.at<int32_t>()[position % 2]);
  while (true) {
    for (int spin = 0; spin < 256; ++spin)
      if (const int32_t value = result.load(std::memory_order_acquire); value != kNoResult) return value;
    // A kernel that failed leaves no result: the stream says so.
    const CUresult state = gpu_.driver().cuStreamQuery(gpu_.stream());
    if (state == CUDA_ERROR_NOT_READY) continue;
    gpu_.driver().check(state, "a decode step");
    if (const int32_t value = result.load(std::memory_order_acquire); value != kNoResult) return value;
    throw failure(APR_FAILED, "a decode step at position {} ended without a result", position);
  }
}

void Session::decode(const apr_batch& batch, bool wanted, const apr_step_output& output) {
  const int32_t token = batch.tokens[0], position = batch.positions[0], sequence = batch.sequences[0];
  const Leaves leaves = !wanted                    ? Leaves::Nothing
                        : output.logits != nullptr ? Leaves::Logits
                        : output.top != nullptr    ? Leaves::Candidates
                                                   : Leaves::Argmax;
  const CUgraphExec graph = graphs_[static_cast<size_t>(leaves)];
  const bool captured = graph != nullptr && (batch.flags & APR_STEP_NO_GRAPH) == 0 && tap_ == nullptr;
  const bool begun = ahead_ && captured && leaves == Leaves::Argmax && ahead_->token == token &&
                     ahead_->position == position && ahead_->sequence == sequence;
  if (begun) {
    ahead_.reset();
  } else {
    drop_ahead();
    write_body_state(bodies_[0], batch);
    host_results_.at<int32_t>()[position % 2] = kNoResult;
    if (captured)
      gpu_.driver().check(gpu_.driver().cuGraphLaunch(graph, gpu_.stream()), "launching the graph of a step");
    else
      decode_work(false, leaves);
  }
  if (leaves != Leaves::Argmax) {
    gpu_.synchronize();
    if (leaves == Leaves::Nothing) return;
    if (output.logits != nullptr)
      std::memcpy(output.logits, host_logits_.at<float>(), size_t{plan_.n_vocab} * 4);
    if (output.top != nullptr) give_candidates(1, output.top);
    if (output.argmax != nullptr) output.argmax[0] = await_result(position);
    return;
  }
  if (captured && (batch.flags & APR_STEP_GREEDY) != 0 && static_cast<uint32_t>(position) + 1 < n_ctx_)
    begin_ahead(position + 1, sequence);
  const int32_t result = await_result(position);
  if (ahead_) ahead_->token = result;
  if (output.argmax != nullptr) output.argmax[0] = result;
}

// ---- several tokens ----------------------------------------------------------------------------------------------------

void Session::many(const apr_batch& batch, const apr_step_output& output) {
  const size_t b = pick(bodies_, batch.n);
  Bound& body = bodies_[b];
  const uint32_t head_rows = heads_.back().rows;
  const auto pieces = static_cast<uint32_t>(wanted_.size());
  write_body_state(body, batch);
  copy_state(body);
  // The first head's state goes before the body, so that nothing but kernels stands between body and head.
  size_t h = 0;
  uint32_t n = std::min(pieces, head_rows);
  if (pieces > 0) h = pick(heads_, n), write_head_state(heads_[h], wanted_.data(), n);
  run(body, batch.n, false, false);
  for (uint32_t first = 0; first < pieces; first += n) {
    n = std::min(pieces - first, head_rows);
    if (first > 0) h = pick(heads_, n), write_head_state(heads_[h], wanted_.data() + first, n);
    for (size_t v = 0; v < crossing_.size(); ++v) {
      const Launch& gather = gather_launches_[(b * heads_.size() + h) * crossing_.size() + v];
      gather.kernel->launch(gpu_, address(gather.args), n, first == 0 && !device_.settings.time_kernels);
    }
    run(heads_[h], n, true, output.top != nullptr);
    copy_results(n, output.logits != nullptr);
    gpu_.synchronize();
    if (output.logits != nullptr)
      std::memcpy(output.logits + size_t{first} * plan_.n_vocab, host_logits_.at<float>(),
                  size_t{n} * plan_.n_vocab * 4);
    if (output.argmax != nullptr)
      std::memcpy(output.argmax + first, host_tokens_.at<int32_t>(), size_t{n} * 4);
    if (output.top != nullptr) give_candidates(n, output.top + size_t{first} * n_top_);
  }
  gpu_.synchronize();
}

// ---- questions ---------------------------------------------------------------------------------------------------------

void Session::tap(apr_tap_fn fn, void* user) {
  drop_ahead();
  tap_ = fn;
  tap_user_ = user;
}

apr_session_info Session::info() const {
  apr_session_info info = info_;
  info.dispatches_after_load = dispatches_ - dispatches_at_load_;
  info.compiles_after_load = kernels_made_ - kernels_made_at_load_;
  return info;
}

}  // namespace apr::cuda
