#include "core/gate/feeder.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <exception>

#include "core/base/error.h"

namespace apr {

Feeder::Feeder(const ParitySide& side, const apr_plan& plan, std::vector<int32_t> tokens)
    : side_(side),
      plan_(plan),
      tokens_(std::move(tokens)),
      positions_(tokens_.size()),
      sequences_(tokens_.size(), 0),
      want_(tokens_.size(), 1) {
  for (size_t i = 0; i < tokens_.size(); ++i) positions_[i] = static_cast<int32_t>(i);
}

void Feeder::step(const int32_t* tokens, uint32_t first, uint32_t n, uint32_t flags, float* logits) {
  const apr_batch batch = {
      sizeof(apr_batch),    n,    tokens + first, positions_.data() + first, sequences_.data() + first,
      want_.data() + first, flags};
  apr_step_output output = {sizeof(apr_step_output), logits, nullptr, nullptr};
  apr_error error = {sizeof(apr_error), {}};
  if (side_.backend->step(side_.session, &batch, &output, &error) != APR_OK)
    throw Error("{} at position {}: {}", side_.backend->name, first, error.message);
}

std::vector<float> Feeder::run(ParityForm form) {
  const auto n = static_cast<uint32_t>(tokens_.size());
  std::vector<float> logits(uint64_t{n} * plan_.n_vocab, std::nanf(""));
  const auto feed = [&](uint32_t first, uint32_t count, uint32_t flags) {
    step(tokens_.data(), first, count, flags, logits.data() + uint64_t{first} * plan_.n_vocab);
  };
  switch (form) {
    case ParityForm::Prefill:
      feed(0, n, 0);
      break;
    case ParityForm::Few: {
      // Sizes on both sides of those that backends make kernels for.
      constexpr std::array<uint32_t, 5> kSizes = {2, 3, 8, 4, 7};
      uint32_t count = 0;
      for (uint32_t first = 0, i = 0; first < n; first += count, ++i) {
        count = std::min(kSizes[i % kSizes.size()], n - first);
        if (n - first - count == 1) ++count;  // a single token is another form
        feed(first, count, 0);
      }
      break;
    }
    case ParityForm::SingleEager:
      for (uint32_t i = 0; i < n; ++i) feed(i, 1, APR_STEP_NO_GRAPH);
      break;
    case ParityForm::SingleGraph:
      for (uint32_t i = 0; i < n; ++i) feed(i, 1, 0);
      break;
    case ParityForm::Mixed:
      if (n / 2 > 0) feed(0, n / 2, 0);
      for (uint32_t i = n / 2; i < n; ++i) feed(i, 1, 0);
      break;
  }
  return logits;
}

void Feeder::scramble() {
  std::vector<int32_t> other(tokens_.rbegin(), tokens_.rend());
  for (size_t i = 0; i < other.size(); ++i) {
    other[i] = static_cast<int32_t>((static_cast<uint64_t>(other[i]) * 7 + 13) % plan_.n_vocab);
    if (other[i] == tokens_[i])
      other[i] = static_cast<int32_t>((static_cast<uint64_t>(other[i]) + 1) % plan_.n_vocab);
  }
  std::vector<float> logits(other.size() * plan_.n_vocab);
  step(other.data(), 0, static_cast<uint32_t>(other.size()), 0, logits.data());
}

TappedStep Feeder::tapped(uint32_t first, uint32_t n) {
  TappedStep result;
  result.tokens.assign(tokens_.begin() + first, tokens_.begin() + first + n);
  result.positions.assign(positions_.begin() + first, positions_.begin() + first + n);
  struct Collector {
    TappedStep* step;
    std::exception_ptr failure;
  } collector{&result, nullptr};
  // Called from a plugin: nothing may be thrown through it. Rows of the head come in several parts when there
  // are many.
  const apr_tap_fn collect = [](void* user, const char* stage, const float* data, uint32_t rows,
                                uint32_t width) {
    auto& c = *static_cast<Collector*>(user);
    try {
      std::vector<float>& all = c.step->stages[stage];
      all.insert(all.end(), data, data + uint64_t{rows} * width);
    } catch (...) {
      c.failure = std::current_exception();
    }
  };
  const auto set_tap = [&](apr_tap_fn fn) {
    apr_error error = {sizeof(apr_error), {}};
    if (side_.backend->tap(side_.session, fn, &collector, &error) != APR_OK)
      throw Error("{}: no tap: {}", side_.backend->name, error.message);
  };
  set_tap(collect);
  std::vector<float> logits(uint64_t{n} * plan_.n_vocab);
  try {
    step(tokens_.data(), first, n, 0, logits.data());
  } catch (...) {
    set_tap(nullptr);
    throw;
  }
  set_tap(nullptr);
  if (collector.failure) std::rethrow_exception(collector.failure);
  return result;
}

}  // namespace apr
