// The parity gate against a device that lies in known ways: each fault must be found, and called by its right name.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>

#include "core/base/error.h"
#include "core/gate/parity.h"

namespace fs = std::filesystem;
using namespace apr;

namespace {

constexpr uint32_t kVocab = 400;

enum class Form { Batch, Eager, Graph };

// A "model": logits that depend on everything up to a position, as those of a language model do.
std::vector<float> truth(const std::vector<int32_t>& tokens, uint32_t position) {
  std::seed_seq seed(tokens.begin(), tokens.begin() + position + 1);
  std::mt19937 random(seed);
  std::normal_distribution<float> draw(0.5f, 2.0f);
  std::vector<float> row(kVocab);
  for (float& v : row) v = draw(random);
  return row;
}

}  // namespace

// A backend whose rows pass through `distort` on their way out.
struct apr_session {
  std::function<void(std::vector<float>& row, uint32_t position, Form form)> distort;
  std::vector<int32_t> seen;
  std::string failure;
  std::string config = "rows=2";
};

namespace {

apr_status fake_step(apr_session* session, const apr_batch* batch, apr_step_output* output,
                     apr_error* error) {
  if (!session->failure.empty())
    return std::snprintf(error->message, sizeof error->message, "%s", session->failure.c_str()), APR_FAILED;
  const Form form = batch->n > 1                              ? Form::Batch
                    : (batch->flags & APR_STEP_NO_GRAPH) != 0 ? Form::Eager
                                                              : Form::Graph;
  for (uint32_t i = 0; i < batch->n; ++i) {
    session->seen.resize(static_cast<size_t>(batch->positions[i]));
    session->seen.push_back(batch->tokens[i]);
    std::vector<float> row = truth(session->seen, static_cast<uint32_t>(batch->positions[i]));
    if (session->distort) session->distort(row, static_cast<uint32_t>(batch->positions[i]), form);
    std::copy(row.begin(), row.end(), output->logits + size_t{i} * kVocab);
  }
  return APR_OK;
}

apr_status fake_info(apr_session*, apr_session_info* info, apr_error*) { return info->n_kernels = 2, APR_OK; }
apr_status fake_kernel(apr_session* session, uint32_t, apr_kernel_info* info, apr_error*) {
  info->stage = "s", info->weight = "w", info->format = "f", info->layout = "l", info->kernel = "k",
  info->config = session->config.c_str(), info->reason = "";
  return APR_OK;
}

const apr_backend kBackend = {sizeof(apr_backend),
                              "fake",
                              "",
                              nullptr,
                              nullptr,
                              nullptr,
                              nullptr,
                              nullptr,
                              nullptr,
                              nullptr,
                              fake_step,
                              nullptr,
                              fake_info,
                              fake_kernel,
                              nullptr,
                              nullptr,
                              nullptr,
                              nullptr};

struct FakePlan {
  std::vector<apr_op> ops;
  std::vector<const apr_op*> list;
  apr_plan plan{};
  explicit FakePlan(int linears) {
    for (int i = 0; i < linears; ++i) {
      apr_op op{};
      op.kind = APR_OP_LINEAR;
      op.in[0] = i;
      ops.push_back(op);
    }
    for (const apr_op& op : ops) list.push_back(&op);
    plan.n_vocab = kVocab, plan.n_ops = static_cast<uint32_t>(list.size()), plan.ops = list.data();
  }
};

using Distort = std::function<void(std::vector<float>&, uint32_t, Form)>;

ParityReport run(const Distort& distort) {
  static const FakePlan plan(9);
  apr_session reference, device;
  device.distort = distort;
  return run_parity(
      {{&kBackend, &reference}, {&kBackend, &device}, &plan.plan, {5, 17, 3, 300, 42, 8}, true, false});
}

void noise(std::vector<float>& row, float relative, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> draw(0, 2.0f * relative);
  for (float& v : row) v += draw(random);
}

}  // namespace

TEST_CASE("a device that computes the same passes, exactly or with the noise of 8-bit activations") {
  const ParityReport exact = run({});
  CHECK(exact.verdict == ParityVerdict::Pass);
  CHECK(exact.fault == ParityFault::None);
  CHECK(exact.positions.size() == 30);  // five forms
  CHECK(exact.worst_nmse == 0);
  const ParityReport rounded = run([](auto& row, uint32_t position, Form form) {
    noise(row, 0.02f, position + (form == Form::Batch ? 100 : 0));
  });
  CHECK(rounded.verdict == ParityVerdict::Pass);
  CHECK(rounded.worst_nmse > 1e-4);
  CHECK(rounded.differences.size() == 10);
}

TEST_CASE("faults are found and named") {
  struct Case {
    ParityFault fault;
    Distort distort;
  };
  const auto unrelated = [](std::vector<float>& row, uint32_t position, Form) {
    std::mt19937 random(position + 1);
    std::shuffle(row.begin(), row.end(), random);
    for (float& v : row) v -= 0.5f;
  };
  const std::vector<Case> cases = {
      {ParityFault::NotFinite,
       [](auto& row, uint32_t position, Form) {
         if (position == 3) row[7] = std::nanf("");
       }},
      {ParityFault::NotFinite, [](auto& row, uint32_t, Form) { row[7] = INFINITY; }},
      {ParityFault::Transposed, unrelated},
      {ParityFault::Sign,
       [](auto& row, uint32_t, Form) {
         for (float& v : row) v = -v;
       }},
      {ParityFault::Scale,
       [](auto& row, uint32_t, Form) {
         for (float& v : row) v *= 1.3f;
       }},
      {ParityFault::Position,
       [&](auto& row, uint32_t position, Form form) {
         if (position > 0) unrelated(row, position, form);
       }},
      {ParityFault::Batch,
       [&](auto& row, uint32_t position, Form form) {
         if (form == Form::Batch) unrelated(row, position, form);
       }},
      {ParityFault::Graph,
       [](auto& row, uint32_t, Form form) {
         if (form == Form::Graph) noise(row, 0.5f, 1);
       }},
      {ParityFault::Graph,
       [](auto& row, uint32_t position, Form form) {
         if (form == Form::Graph && position == 4) row[9] += 1e-5f;
       }},  // one bit is enough
      {ParityFault::Precision, [](auto& row, uint32_t position, Form) { noise(row, 0.15f, position); }},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    CAPTURE(i);
    const ParityReport report = run(cases[i].distort);
    CHECK(report.verdict == ParityVerdict::Fail);
    CHECK(std::string(to_string(report.fault)) == to_string(cases[i].fault));
    CHECK_FALSE(report.reason.empty());
    CHECK(describe(report).find("parity: fail: ") == 0);
  }
}

TEST_CASE("what earlier tokens left behind is a fault, even where the logits are close") {
  int batches = 0;
  const ParityReport state = run([&](auto& row, uint32_t position, Form form) {
    if (form == Form::Batch && position == 0) ++batches;
    row[5] += 1e-5f * static_cast<float>(batches > 4 ? 1 : 0);
  });
  CHECK(state.verdict == ParityVerdict::Fail);
  CHECK(std::string(to_string(state.fault)) == to_string(ParityFault::State));
  const ParityReport kl = run([](auto& row, uint32_t position, Form) { noise(row, 0.02f, position); });
  for (const ParityPosition& p : kl.positions) {
    CHECK(p.kl > 0);
    CHECK(p.kl < 0.05);
    CHECK(p.max_difference > 0);
  }
}

TEST_CASE("another best token is a fault only where the margin is larger than the noise") {
  const auto swap_best = [](float margin) {
    return [margin](std::vector<float>& row, uint32_t position, Form) {
      if (position != 2) return;
      const auto best = std::max_element(row.begin(), row.end());
      row[0] = *best + margin, *best -= margin;
    };
  };
  CHECK(run(swap_best(0.0f)).positions[2].pass ==
        false);  // token 0 was far below the best: 6 deviations of noise do not explain it
  const ParityReport close = run([](std::vector<float>& row, uint32_t, Form) {
    // The two best exchange places by less than the noise.
    auto best = std::max_element(row.begin(), row.end());
    const float top = *best;
    *best = -INFINITY;
    auto second = std::max_element(row.begin(), row.end());
    *best = top;
    if (top - *second < 0.3f) std::swap(*best, *second);
  });
  CHECK(close.verdict == ParityVerdict::Pass);
}

TEST_CASE("what cannot be compared is not a pass") {
  const FakePlan plan(9);
  apr_session good, bad;
  bad.failure = "out of memory";
  const ParityReport reference =
      run_parity({{&kBackend, &bad}, {&kBackend, &good}, &plan.plan, {1, 2, 3}, true, false});
  CHECK(reference.verdict == ParityVerdict::NotRun);
  CHECK(reference.reason == "the reference could not be computed: fake at position 0: out of memory");
  const ParityReport device =
      run_parity({{&kBackend, &good}, {&kBackend, &bad}, &plan.plan, {1, 2, 3}, true, false});
  CHECK(device.verdict == ParityVerdict::Fail);
  CHECK(device.reason == "prefill form: fake at position 0: out of memory");
  apr_session nan;
  nan.distort = [](auto& row, uint32_t, Form) { row[0] = std::nanf(""); };
  CHECK(run_parity({{&kBackend, &nan}, {&kBackend, &good}, &plan.plan, {1, 2, 3}, true, false}).verdict ==
        ParityVerdict::NotRun);
  CHECK_THROWS_AS(run_parity({{&kBackend, &good}, {&kBackend, &good}, &plan.plan, {1}, true, false}), Error);
}

TEST_CASE("the bound grows with depth, shrinks with precision, and never lets a fault through") {
  const FakePlan shallow(9), deep(113), absurd(100000);
  CHECK(parity_tolerance(shallow.plan, true, false) < parity_tolerance(deep.plan, true, false));
  CHECK(parity_tolerance(shallow.plan, true, true) < 1e-4);
  CHECK(parity_tolerance(shallow.plan, false, false) > parity_tolerance(shallow.plan, true, false));
  CHECK(parity_tolerance(absurd.plan, false, false) == doctest::Approx(0.02));
}

TEST_CASE("receipts: a pass is found again by the same identity and by no other") {
  char name[] = "/tmp/apr_receipts_XXXXXX";
  const fs::path folder = fs::path(::mkdtemp(name)) / "deep" / "receipts";
  const ParityIdentity identity = {"model",   "program", {"plugin a", "plugin b"},
                                   "kernels", "device",  "options"};
  CHECK_FALSE(find_receipt(folder, identity).has_value());
  const std::string file = write_receipt(folder, identity, run({}));
  CHECK(fs::exists(file));
  REQUIRE(find_receipt(folder, identity).has_value());
  CHECK(find_receipt(folder, identity)->find("\"verdict\": \"pass\"") != std::string::npos);
  for (std::string ParityIdentity::*member :
       {&ParityIdentity::model, &ParityIdentity::program, &ParityIdentity::kernels, &ParityIdentity::device,
        &ParityIdentity::options}) {
    ParityIdentity other = identity;
    other.*member += "x";
    CHECK_FALSE(find_receipt(folder, other).has_value());
  }
  ParityIdentity other = identity;
  other.plugins.pop_back();
  CHECK_FALSE(find_receipt(folder, other).has_value());
  // Damaged or copied to another name: nothing.
  std::ofstream(file) << "{\"verdict\": \"pass\"}";
  CHECK_FALSE(find_receipt(folder, identity).has_value());
  std::ofstream(file) << "rubbish";
  CHECK_FALSE(find_receipt(folder, identity).has_value());
  CHECK_THROWS_AS(
      write_receipt(folder, identity, run([](auto& row, uint32_t, Form) { row[0] = std::nanf(""); })), Error);
  fs::remove_all(folder);
  std::ofstream(folder) << "a file";
  CHECK(write_receipt(folder, identity, run({})) == "");
  fs::remove_all(folder.parent_path().parent_path());
}

TEST_CASE("identities tell files and kernels apart") {
  char name[] = "/tmp/apr_identity_XXXXXX";
  const fs::path folder = ::mkdtemp(name);
  const std::string file = folder / "a";
  std::ofstream(file) << "one";
  const std::string first = cheap_file_identity(file), hash = file_hash(file);
  std::ofstream(file) << "two";
  CHECK(cheap_file_identity(file) != first);
  CHECK(file_hash(file) != hash);
  CHECK_THROWS_AS(cheap_file_identity(folder / "none"), Error);
  fs::remove_all(folder);
  apr_session a, b;
  CHECK(kernels_hash(kBackend, &a) == kernels_hash(kBackend, &b));
  b.config = "rows=4";
  CHECK(kernels_hash(kBackend, &a) != kernels_hash(kBackend, &b));
}
