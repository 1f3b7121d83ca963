#include "session.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "candidates.h"
#include "failure.h"
#include "row_ops.h"
#include "weights.h"

using namespace apr::cpu;

namespace {

double now_microseconds() {
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

const apr_load_options& checked(const apr_load_options& o) {
  constexpr uint32_t kMostPositions = 1u << 30, kMostSequences = 1u << 20, kMostBatch = 1u << 20;
  if (o.n_ctx == 0 || o.n_ctx > kMostPositions)
    fail(APR_INVALID, "a context of %u positions; 1 to %u are possible", o.n_ctx, kMostPositions);
  if (o.n_sequences == 0 || o.n_sequences > kMostSequences)
    fail(APR_INVALID, "%u sequences; 1 to %u are possible", o.n_sequences, kMostSequences);
  if (o.n_batch == 0 || o.n_batch > kMostBatch)
    fail(APR_INVALID, "batches of %u tokens; 1 to %u are possible", o.n_batch, kMostBatch);
  if (o.n_top > APR_MAX_TOP)
    fail(APR_INVALID, "%u candidates; at most %u are possible", o.n_top, APR_MAX_TOP);
  return o;
}

}  // namespace

apr_session::apr_session(apr_device& device, const apr_plan* plan, const apr_load_options& options)
    : device_(device),
      chooser_(checked(options), device.isa, device.copies_weights),
      program_(build_program(plan, {&chooser_, options.precise != 0, device.time_kernels, options.n_ctx,
                                    options.n_sequences, options.n_batch})),
      batches_(options.n_ctx, options.n_sequences, options.n_batch, program_.n_tokens_known),
      partials_(program_, options.n_ctx, options.n_batch),
      ranges_(device.pool->threads()),
      n_top_(options.n_top) {
  if (n_top_ > program_.n_vocab)
    fail(APR_INVALID, "%u candidates of a vocabulary of %u", n_top_, program_.n_vocab);
  const double begin = now_microseconds();
  const uint32_t threads = device.pool->threads();
  for (uint32_t t = 0; t < threads; ++t) {
    linear_.emplace_back(program_.k_step, options.n_batch);
    attention_.emplace_back(program_.query_rows, program_.padded);
  }
  sections_.reserve(program_.phases.size());
  state_.kernels = device.kernels;

  const double touching = now_microseconds();
  place_weights(device, program_, options.progress, options.progress_user);
  info_.upload_seconds = (now_microseconds() - touching) * 1e-6;

  describe(options.n_batch);
  if (chooser_.passed_over() > 0)
    device.log(1, "%u rules are not used: their kernels round activations, and the session is precise",
               chooser_.passed_over());
  info_.load_seconds = (now_microseconds() - begin) * 1e-6;
  choices_at_load_ = program_.choices;
}

bool apr_session::is_serial(const Phase& phase) const {
  // A barrier costs about as much as some thousand floats of row work; and one row cannot be shared out at all.
  constexpr uint64_t kFloats = 16384;
  return phase.kind == PhaseKind::Rows &&
         (rows_of(phase) <= 1 || rows_of(phase) * phase.row_cost < kFloats || device_.pool->threads() == 1);
}

apr_session::Section apr_session::section_of(const Phase& phase, uint32_t index) const {
  const uint32_t rows = rows_of(phase), threads = device_.pool->threads();
  Section s{index, index, 0, 1u << 30, 1};
  switch (phase.kind) {
    case PhaseKind::Rows:
      s.tasks = rows;
      break;
    case PhaseKind::Linear:
      if (rows <= APR_CPU_GEMV_MAX_M) {
        s.tasks = phase.gemv_tasks;
        s.share = 8;
        break;
      }
      // Too few panels for all threads: the same panel for fewer rows each time. 64 rows still outweigh its unpacking.
      if (phase.gemm_tasks < 4 * uint64_t{threads} && threads > 1)
        s.splits = static_cast<uint32_t>(
            std::clamp<uint64_t>(4 * uint64_t{threads} / phase.gemm_tasks, 1, std::max(1u, rows / 64)));
      s.tasks = phase.gemm_tasks * s.splits;
      break;
    case PhaseKind::Attention:
      s.tasks = phase.attention.shape->tasks;
      break;
  }
  return s;
}

void apr_session::run_tasks(const Phase& phase, const Section& section, uint32_t thread, uint64_t begin,
                            uint64_t end) {
  const uint32_t rows = rows_of(phase);
  switch (phase.kind) {
    case PhaseKind::Rows:
      for (uint64_t row = begin; row < end; ++row)
        for (const RowOp& op : phase.rows) op.run(op, state_, static_cast<uint32_t>(row));
      break;
    case PhaseKind::Linear:
      if (rows <= APR_CPU_GEMV_MAX_M) {
        run_gemv(phase, state_, begin, end);
        break;
      }
      for (uint64_t task = begin; task < end; ++task) {
        const uint64_t part = task % section.splits;
        const auto m0 = static_cast<uint32_t>(rows * part / section.splits);
        const auto m1 = static_cast<uint32_t>(rows * (part + 1) / section.splits);
        run_gemm(phase, state_, linear_[thread], task / section.splits, m0, m1);
      }
      break;
    case PhaseKind::Attention:
      for (uint64_t task = begin; task < end; ++task)
        run_attention(phase.attention, state_, attention_[thread], partials_, task);
      break;
  }
}

void apr_session::run_section(const Section& section, uint32_t index, uint32_t thread) {
  const Phase& phase = program_.phases[section.phase];
  for (uint64_t begin, end; ranges_.claim(thread, index, section.share, begin, end);)
    run_tasks(phase, section, thread, begin, end);
}

void apr_session::finish_phase(uint32_t phase) {
  const double now = now_microseconds();
  Phase& p = program_.phases[phase];
  p.microseconds[rows_of(p) > APR_CPU_GEMV_MAX_M] = now - mark_;
  mark_ = now;
}

void apr_session::run_serial(uint32_t begin, uint32_t end) {
  for (uint32_t i = begin; i < end; ++i) {
    const Phase& phase = program_.phases[i];
    for (uint32_t row = 0; row < rows_of(phase); ++row)
      for (const RowOp& op : phase.rows) op.run(op, state_, row);
    finish_phase(i);
  }
}

void apr_session::run_phases(uint32_t begin, uint32_t end) {
  mark_ = now_microseconds();
  uint32_t first = begin;
  while (first < end && is_serial(program_.phases[first])) ++first;
  run_serial(begin, first);
  sections_.clear();
  for (uint32_t i = first; i < end; ++i) {
    if (is_serial(program_.phases[i]))
      sections_.back().last_serial = i;
    else
      sections_.push_back(section_of(program_.phases[i], i));
  }
  if (sections_.empty()) return;
  ThreadPool& pool = *device_.pool;
  for (uint32_t t = 0; t < pool.threads(); ++t) ranges_.prepare(t, 0, sections_[0].tasks);
  pool.run([&](uint32_t thread) {
    const auto n = static_cast<uint32_t>(sections_.size());
    for (uint32_t i = 0; i < n; ++i) {
      const Section& s = sections_[i];
      if (i + 1 < n) ranges_.prepare(thread, i + 1, sections_[i + 1].tasks);
      run_section(s, i, thread);
      pool.barrier().wait(thread, [&] {
        finish_phase(s.phase);
        run_serial(s.phase + 1, s.last_serial + 1);
      });
    }
  });
}

void apr_session::report(uint32_t index) {
  for (const uint32_t op : program_.phases[index].ops) {
    const Value& v = *program_.values[static_cast<size_t>(program_.ops[op].out)];
    const uint32_t rows = v.head ? state_.head_rows : state_.rows;
    if (v.stride == v.width || rows == 1) {
      tap_(tap_user_, program_.ops[op].stage, v.data, rows, v.width);
    } else {
      // Rows are apart in memory; the receiver gets them side by side.
      std::vector<float> packed(uint64_t{rows} * v.width);
      for (uint32_t r = 0; r < rows; ++r)
        std::copy_n(out_row(v, r), v.width, packed.data() + uint64_t{r} * v.width);
      tap_(tap_user_, program_.ops[op].stage, packed.data(), rows, v.width);
    }
  }
}

void apr_session::step(const apr_batch& batch, apr_step_output& output) {
  if (output.top && n_top_ == 0)
    fail(APR_INVALID, "candidates are wanted, but the session was loaded for none (n_top = 0)");
  batches_.check(batch);
  state_.rows = batch.n;
  state_.head_rows = 0;
  state_.tokens = batch.tokens;
  state_.positions = batch.positions;
  state_.sequences = batch.sequences;
  state_.order = batches_.order().data();
  state_.tapped = tap_ != nullptr;
  for (const auto& shape : program_.shapes) cut(*shape, state_, device_.pool->threads());

  const auto run = [&](uint32_t begin, uint32_t end) {
    if (!tap_) return run_phases(begin, end);
    for (uint32_t i = begin; i < end; ++i) {
      run_phases(i, i + 1);
      report(i);
    }
  };
  const auto end = static_cast<uint32_t>(program_.phases.size());
  const std::vector<uint32_t>& wanted = batches_.wanted();
  const bool head = !wanted.empty() && (output.logits || output.argmax || output.top || tap_);

  // The first group of wanted tokens goes with the rest of the step; more than a group's come after it.
  Value& logits = *program_.logits;
  float* const own = logits.data;
  const uint64_t own_stride = logits.stride;
  const bool direct =
      output.logits && logits.last == logits.born;  // nothing else reads them: straight to the caller
  uint32_t done = 0;
  do {
    state_.wanted = wanted.data() + done;
    state_.head_rows =
        head ? std::min<uint32_t>(program_.head_rows, static_cast<uint32_t>(wanted.size()) - done) : 0;
    if (direct && head) {
      logits.data = output.logits + uint64_t{done} * program_.n_vocab;
      logits.stride = program_.n_vocab;
    }
    run(done == 0 ? 0 : program_.head_phase, head ? end : program_.head_phase);
    if (output.logits && !direct)
      for (uint32_t r = 0; r < state_.head_rows; ++r)
        std::copy_n(out_row(logits, r), program_.n_vocab,
                    output.logits + uint64_t{done + r} * program_.n_vocab);
    if (output.argmax || output.top)
      for (uint32_t r = 0; r < state_.head_rows; ++r) {
        const float* row = out_row(logits, r);
        const int64_t best = state_.kernels->argmax(row, program_.n_vocab);
        if (output.argmax) output.argmax[done + r] = static_cast<int32_t>(best);
        if (output.top)
          find_candidates(row, program_.n_vocab, best < 0, n_top_, output.top + uint64_t{done + r} * n_top_);
      }
    logits.data = own;
    logits.stride = own_stride;
    done += state_.head_rows;
  } while (head && done < wanted.size());
  batches_.commit(batch);
}

void apr_session::tap(apr_tap_fn fn, void* user) {
  tap_ = fn;
  tap_user_ = user;
}
