// Whole models made by hand: sequences, batches of all shapes, wrong batches, the same bits on any number of threads.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "support.h"

using namespace apr::test;

namespace {

std::vector<Token> prompt(uint32_t n, int32_t sequence = 0, uint32_t seed = 1, int32_t first = 0) {
  std::mt19937 rng(seed);
  std::vector<Token> t;
  for (uint32_t i = 0; i < n; ++i)
    t.push_back(
        {static_cast<int32_t>(rng() % SmallModel::kVocab), first + static_cast<int32_t>(i), sequence});
  return t;
}
std::vector<Token> slice(const std::vector<Token>& t, size_t from, size_t to) {
  return {t.begin() + static_cast<long>(from), t.begin() + static_cast<long>(to)};
}
std::vector<float> joined(std::vector<float> a, const std::vector<float>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

}  // namespace

TEST_CASE("batch and token by token") {
  // A product of up to 4 tokens is the format's kernel, one of more is the backend's: they add in different orders. Once
  // that tips one key to the next binary16 or one activation to the next int8, all that follows is rounded anew, so the two
  // differ by as much as either differs from the exact result.
  struct Kind {
    const apr_quant_format* format;
    bool precise;
    double most;  // NMSE between the two
  };
  for (const Kind& kind :
       {Kind{&kFloat32, false, 1e-8}, {&kInt32, false, 3e-4}, {&kInt16, false, 3e-4}, {&kInt48, true, 1e-12}})
    for (const std::string& isa : instruction_sets()) {
      CAPTURE(std::string(kind.format->name));
      CAPTURE(isa);
      SmallModel model(*kind.format);
      const SessionOptions options{512, 1, 400, kind.precise};
      Loaded batch(model.plan(), {isa, 2}, options), single(model.plan(), {isa, 2}, options);
      REQUIRE_MESSAGE(batch.ok(), batch.error());
      const std::vector<Token> tokens = prompt(350);
      const Result all = batch.step(tokens);
      REQUIRE(all.status == APR_OK);
      std::vector<float> one_by_one;
      for (const Token& t : tokens) one_by_one = joined(one_by_one, single.step({t}).logits);
      CHECK(nmse(one_by_one, all.logits) < kind.most);

      // Cut in two, each part still a product of many tokens: the same bits.
      const Result first = batch.step(slice(tokens, 0, 150)), second = batch.step(slice(tokens, 150, 350));
      CHECK(joined(first.logits, second.logits) == all.logits);
      CHECK(batch.info().dispatches_after_load == 0);
      CHECK(batch.info().compiles_after_load == 0);
    }
}

TEST_CASE("the same bits on any number of threads") {
  for (const std::string& isa : instruction_sets()) {
    CAPTURE(isa);
    SmallModel model(kInt32);
    std::vector<float> first;
    for (const uint32_t threads : {1u, 2u, 3u, 7u}) {
      CAPTURE(threads);
      Loaded loaded(model.plan(), {isa, threads}, {512, 2, 400});
      std::vector<float> logits = loaded.step(prompt(300)).logits;
      for (uint32_t i = 0; i < 5; ++i)
        logits = joined(logits, loaded.step(prompt(1, 0, i, 300 + static_cast<int32_t>(i))).logits);
      logits = joined(logits, loaded.step(prompt(3, 1)).logits);
      if (first.empty()) first = logits;
      CHECK(logits == first);
    }
  }
}

TEST_CASE("interleaved sequences are as if alone") {
  SmallModel model(kInt16);
  constexpr uint32_t kEach = 20;
  std::vector<std::vector<float>> alone;
  for (uint32_t s = 0; s < 3; ++s) {
    Loaded loaded(model.plan(), {}, {64, 1, 64});
    alone.push_back(loaded.step(prompt(kEach, 0, 10 + s)).logits);
  }
  Loaded loaded(model.plan(), {}, {64, 5, 64});
  const int32_t names[] = {4, 0, 2};  // of the sequences; the batch is in no order of them
  std::vector<Token> batch;
  for (uint32_t i = 0; i < kEach; ++i)
    for (uint32_t s = 0; s < 3; ++s) batch.push_back(prompt(kEach, names[s], 10 + s)[i]);
  const Result r = loaded.step(batch);
  REQUIRE_MESSAGE(r.status == APR_OK, r.error);
  for (uint32_t i = 0; i < kEach; ++i)
    for (uint32_t s = 0; s < 3; ++s)
      REQUIRE(std::equal(alone[s].begin() + i * SmallModel::kVocab,
                         alone[s].begin() + (i + 1) * SmallModel::kVocab,
                         r.logits.begin() + (i * 3 + s) * SmallModel::kVocab));

  // One more token of each, at once: as if alone.
  std::vector<Token> next;
  for (uint32_t s = 0; s < 3; ++s) next.push_back({static_cast<int32_t>(50 + s), kEach, names[s]});
  const Result together = loaded.step(next);
  for (uint32_t s = 0; s < 3; ++s) {
    Loaded other(model.plan(), {}, {64, 1, 64});
    other.step(prompt(kEach, 0, 10 + s));
    const Result one = other.step({{static_cast<int32_t>(50 + s), kEach}});
    CHECK(std::equal(one.logits.begin(), one.logits.end(), together.logits.begin() + s * SmallModel::kVocab));
  }
}

TEST_CASE("a lower position discards what followed it") {
  SmallModel model(kInt32);
  Loaded loaded(model.plan(), {}, {128, 2, 64});
  const std::vector<float> a = loaded.step(prompt(40, 0, 1)).logits;
  const std::vector<float> b = loaded.step(prompt(50, 0, 2)).logits;
  CHECK(loaded.step(prompt(40, 0, 1)).logits == a);
  CHECK(a != b);
  // Positions 40..49 of b are no longer there.
  const Result hole = loaded.step({{1, 45}});
  CHECK(hole.status == APR_INVALID);
  CHECK(hole.error.find("has 40 stored") != std::string::npos);
  // The other sequence saw nothing of it.
  CHECK(loaded.step(prompt(40, 1, 1)).logits == a);
  // Back by one, then on with the token that was there: the same.
  const std::vector<Token> tokens = prompt(40, 0, 1);
  const Result again = loaded.step(slice(tokens, 20, 40));
  CHECK(std::equal(again.logits.begin(), again.logits.end(), a.begin() + 20 * SmallModel::kVocab));
}

TEST_CASE("wrong batches are refused and change nothing") {
  SmallModel model(kInt32);
  Loaded loaded(model.plan(), {}, {32, 2, 16});
  const std::vector<float> before = loaded.step(prompt(10)).logits;
  const auto refused = [&](const std::vector<Token>& tokens, const std::string& text) {
    const Result r = loaded.step(tokens);
    CHECK(r.status == APR_INVALID);
    CHECK_MESSAGE(r.error.find(text) != std::string::npos, r.error);
    CHECK(std::all_of(r.logits.begin(), r.logits.end(), [](float x) { return std::isnan(x); }));
  };
  refused({}, "no tokens");
  refused(prompt(17), "at most 16");
  refused({{-1, 10}}, "token 0 of the batch is -1");
  refused({{200, 10}}, "200");
  refused({{1, -1}}, "position -1");
  refused({{1, 32}}, "positions 0..31");
  refused({{1, 10, 2}}, "sequence 2");
  refused({{1, 10, -1}}, "sequence -1");
  refused({{1, 11}}, "has 10 stored");
  refused({{1, 1, 1}}, "has 0 stored");
  refused({{1, 10}, {2, 12}}, "after position 10");
  refused({{1, 10}, {2, 10}}, "consecutive");
  refused({{1, 10}, {2, 0, 1}, {3, 9}}, "consecutive");
  refused({{1, 10}, {2, 0, 1}, {3, 11}, {4, 2, 1}}, "sequence 1");
  refused({{1, 5}, {2, 4}}, "consecutive");

  apr_error e{};
  e.struct_size = sizeof(e);
  apr_step_output out{};
  out.struct_size = sizeof(out);
  apr_batch b{};
  b.struct_size = sizeof(b);
  b.n = 1;
  CHECK(backend().step(loaded.session(), &b, &out, &e) == APR_INVALID);
  CHECK(backend().step(loaded.session(), nullptr, &out, &e) == APR_INVALID);
  CHECK(backend().step(loaded.session(), &b, nullptr, &e) == APR_INVALID);

  // All of it was for nothing: the sequence goes on where it was.
  Loaded other(model.plan(), {}, {32, 2, 16});
  other.step(prompt(10));
  CHECK(loaded.step({{7, 10}}).logits == other.step({{7, 10}}).logits);
}

TEST_CASE("only wanted tokens have logits") {
  for (const bool head_norm : {true, false}) {
    CAPTURE(head_norm);
    SmallModel model(kInt32, head_norm);
    Loaded loaded(model.plan(), {}, {256, 1, 200});
    std::vector<Token> tokens = prompt(200);
    const Result all = loaded.step(tokens, true, true);  // more than one group of wanted tokens
    REQUIRE(all.status == APR_OK);
    std::vector<float> expected;
    std::vector<int32_t> expected_argmax;
    for (size_t i = 0; i < tokens.size(); ++i) {
      tokens[i].want = i % 7 == 3;
      if (!tokens[i].want) continue;
      const auto row = all.logits.begin() + static_cast<long>(i * SmallModel::kVocab);
      expected.insert(expected.end(), row, row + SmallModel::kVocab);
      expected_argmax.push_back(all.argmax[i]);
      CHECK(all.argmax[i] == std::max_element(row, row + SmallModel::kVocab) - row);
    }
    const Result some = loaded.step(tokens, true, true);
    CHECK(some.logits == expected);
    CHECK(some.argmax == expected_argmax);
    CHECK(loaded.step(tokens, false, true).argmax == expected_argmax);
    for (Token& t : tokens) t.want = false;
    CHECK(loaded.step(tokens).status == APR_OK);
    // The cache is as full as ever.
    CHECK(loaded.step({{5, 200}}).status == APR_OK);
    for (Token& t : tokens) t.want = true;
    CHECK(loaded.step(tokens, false, true).argmax == all.argmax);
  }
}

TEST_CASE("candidates are the largest logits in order") {
  SmallModel model(kInt32, true);
  for (const uint32_t n_top : {1u, 40u, uint32_t{SmallModel::kVocab}}) {
    CAPTURE(n_top);
    Loaded loaded(model.plan(), {}, {.n_ctx = 256, .n_batch = 200, .n_top = n_top});
    REQUIRE_MESSAGE(loaded.ok(), loaded.error());
    const Result all = loaded.step(prompt(200), true);  // more than one group of wanted tokens
    REQUIRE(all.status == APR_OK);
    int wrong = 0;
    for (size_t row = 0; row < 200; ++row) {
      const float* x = all.logits.data() + row * SmallModel::kVocab;
      std::vector<int32_t> order(SmallModel::kVocab);
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return x[a] > x[b]; });
      for (size_t i = 0; i < n_top; ++i) {
        const apr_candidate& c = all.top[row * n_top + i];
        wrong += c.token != order[i] || c.logit != x[order[i]];
      }
    }
    CHECK(wrong == 0);
    const Result alone = loaded.step(prompt(200), false);
    CHECK(std::equal(alone.top.begin(), alone.top.end(), all.top.begin(),
                     [](const auto& a, const auto& b) { return a.token == b.token && a.logit == b.logit; }));
  }
  for (const uint32_t n_top : {uint32_t{SmallModel::kVocab} + 1, uint32_t{APR_MAX_TOP} + 1}) {
    Loaded refused(model.plan(), {}, {.n_top = n_top});
    CHECK_FALSE(refused.ok());
    CHECK(refused.error().find("candidates") != std::string::npos);
  }
}

TEST_CASE("taps report every stage and change no bits") {
  SmallModel model(kInt16);
  Loaded loaded(model.plan(), {}, {64, 1, 64});
  for (const uint32_t n : {1u, 30u}) {
    const std::vector<float> logits = loaded.step(prompt(n)).logits;
    auto stages = loaded.taps(prompt(n));
    for (const apr_op& op : model.maker.ops) {
      CAPTURE(op.stage);
      CHECK(stages[op.stage].size() == n * model.maker.values[static_cast<size_t>(op.out)].width);
    }
    CHECK(stages.size() == model.maker.ops.size());
    CHECK(stages["logits"] == logits);
    CHECK(loaded.step(prompt(n)).logits == logits);
  }
}

TEST_CASE("what a session says about itself") {
  SmallModel model(kInt32);
  Loaded loaded(model.plan(), {"", 2}, {100, 3, 16});
  loaded.step(prompt(1));
  const apr_session_info info = loaded.info();
  uint64_t weights = 0, token = 0;
  for (size_t i = 0; i < model.maker.weights.size(); ++i) {
    weights += model.maker.weights[i].bytes;
    token += i == 0 ? SmallModel::kDim * 4 : model.maker.weights[i].bytes;
  }
  CHECK(info.weight_bytes == weights);
  CHECK(info.token_bytes == token);
  // 2 layers, 2 heads of 24 columns (values padded to 32), binary16; 100 positions are 4 tiles of 32.
  CHECK(info.kv_token_bytes == 2 * 2 * (24 + 32) * 2);
  CHECK(info.kv_bytes >= info.kv_token_bytes * 128 * 3);
  CHECK(info.scratch_bytes > 0);
  CHECK(info.load_seconds > 0);
  const std::vector<apr_kernel_info> kernels = loaded.kernels();
  size_t i = 0;
  for (const apr_op& op : model.maker.ops) {
    REQUIRE(i < kernels.size());
    CHECK(std::string(kernels[i].stage) == op.stage);
    CHECK(std::string(kernels[i].layout) == "row_major");
    const bool in_products = op.kind == APR_OP_SWIGLU;
    CHECK((kernels[i].microseconds > 0) == !in_products);
    ++i;
    if (op.kind != APR_OP_LINEAR) continue;
    // A second kernel for more tokens, which this step did not run.
    REQUIRE(i < kernels.size());
    CHECK(std::string(kernels[i].stage) == op.stage);
    CHECK(kernels[i].microseconds == 0);
    ++i;
  }
  CHECK(i == kernels.size());
  CHECK(std::string(kernels[2].kernel) == "gemv_int");
  CHECK((kernels[2].m_min == 1 && kernels[2].m_max == 4));
  CHECK(std::string(kernels[3].kernel) == "gemm_int");
  CHECK((kernels[3].m_min == 5 && kernels[3].m_max == 16));
  CHECK(std::string(kernels[2].format) == "test.int-32");
  CHECK(std::string(kernels[2].config).find("plain") != std::string::npos);
  apr_error e{};
  e.struct_size = sizeof(e);
  apr_kernel_info k{};
  k.struct_size = sizeof(k);
  CHECK(backend().kernel(loaded.session(), 10000, &k, &e) == APR_INVALID);
}
