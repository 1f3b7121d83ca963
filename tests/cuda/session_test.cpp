// Sessions of the CUDA backend on small random models, against float64. The same cases run on the fake GPU (tests/cuda),
// where they judge the host side alone, and on a real one (tests/gpu).
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <numeric>
#include <set>

#include "tests/cuda/support/formats.h"
#include "tests/cuda/support/harness.h"
#include "tests/cuda/support/tiny_plan.h"

using namespace apr::test;

namespace {

// Int8 activations in blocks of 16 cost about 2e-4 on models this small (the emulator has them too); f16 in tensor cores and
// the KV cache about 1e-6.
double bound(const TinyShape& shape, bool precise) {
  if (!precise && format(shape.format).codec->kind == APR_CODEC_INTEGER) return 6e-4;
  return on_fake_gpu() ? 2e-6 : 5e-6;
}

void compare(const std::vector<float>& logits, const std::vector<double>& reference, double tolerance) {
  REQUIRE(logits.size() == reference.size());
  const double error = nmse(logits.data(), reference.data(), logits.size());
  CHECK(error <= tolerance);
}

std::vector<double> reference_logits(const apr_plan& plan, const std::vector<int32_t>& tokens) {
  Reference reference(plan);
  std::vector<int32_t> positions(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) positions[i] = static_cast<int32_t>(i);
  return reference.step(tokens, positions, std::vector<int32_t>(tokens.size(), 0));
}

void check_shape(const TinyShape& shape, const TestSession::Options& options) {
  const TinyPlan tiny(shape);
  const auto tokens = random_tokens(21, shape.n_vocab, 7);
  const auto reference = reference_logits(tiny.plan(), tokens);
  TestSession session(tiny.plan(), options);
  compare(session.feed(tokens), reference, bound(shape, options.precise));
  compare(session.feed_single(tokens), reference, bound(shape, options.precise));
  CHECK(session.info().dispatches_after_load == 0);
  CHECK(session.info().compiles_after_load == 0);
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace

TEST_CASE("every format, as a batch and token by token, is near float64") {
  for (const apr_quant_format* f : formats()) {
    if (f->codec == nullptr || f->quantize == nullptr) continue;
    const std::string name = f->name;
    CAPTURE(name);
    TinyShape shape;
    shape.format = f->name;
    check_shape(shape, {});
  }
}

TEST_CASE("heads of every size and ratio, norms, rotations, windows, biases") {
  std::vector<TinyShape> shapes(8);
  shapes[0].n_heads = 8, shapes[0].n_kv_heads = 8, shapes[0].head_dim = 80, shapes[0].rope_dims = 80,
  shapes[0].rope = APR_ROPE_HALVES;
  shapes[1].n_heads = 4, shapes[1].n_kv_heads = 1, shapes[1].head_dim = 96, shapes[1].rope_dims = 96;
  shapes[2].n_heads = 7, shapes[2].n_kv_heads = 1, shapes[2].head_dim = 128, shapes[2].rope_dims = 128,
  shapes[2].rope = APR_ROPE_HALVES, shapes[2].bias = true;
  shapes[3].n_heads = 8, shapes[3].n_kv_heads = 1, shapes[3].qk_norm = true, shapes[3].head_dim = 128,
  shapes[3].rope_dims = 128, shapes[3].rope = APR_ROPE_HALVES;
  shapes[4].window = 5;
  shapes[5].rope_dims = 32, shapes[5].tied = true;
  shapes[6].rope = APR_ROPE_NONE;
  shapes[7].n_embd = 250, shapes[7].n_ff = 131,
  shapes[7].n_vocab = 97;  // rows that end within a codec's block
  for (size_t i = 0; i < shapes.size(); ++i) {
    CAPTURE(i);
    check_shape(shapes[i], {});
  }
}

TEST_CASE("matrices of different formats share one kernel") {
  TinyShape shape;
  shape.format = "q4_k", shape.v_format = "q6_k", shape.bias = true;
  check_shape(shape, {});
  shape.format = "f16", shape.v_format = "f32";
  check_shape(shape, {});
  shape.format = "q8_0", shape.v_format = "f16";
  check_shape(shape, {});
}

TEST_CASE("precise sessions keep activations in floats") {
  TinyShape shape;
  shape.format = "q4_k", shape.v_format = "q6_k";
  TestSession::Options options;
  options.precise = true;
  check_shape(shape, options);
}

TEST_CASE("every batch size has a program") {
  TinyShape shape;
  shape.n_layers = 1;
  const TinyPlan tiny(shape);
  const auto tokens = random_tokens(21, shape.n_vocab, 3);
  const auto reference = reference_logits(tiny.plan(), tokens);
  for (const uint32_t n_batch : {1u, 2u, 3u, 7u, 8u, 9u, 21u}) {
    CAPTURE(n_batch);
    TestSession::Options options;
    options.n_batch = n_batch;
    TestSession session(tiny.plan(), options);
    std::vector<float> all;
    for (size_t first = 0; first < tokens.size(); first += n_batch) {
      const size_t n = std::min<size_t>(n_batch, tokens.size() - first);
      const auto part = session.feed({tokens.begin() + static_cast<ptrdiff_t>(first),
                                      tokens.begin() + static_cast<ptrdiff_t>(first + n)},
                                     static_cast<int32_t>(first));
      all.insert(all.end(), part.begin(), part.end());
    }
    compare(all, reference, bound(shape, false));
  }
}

TEST_CASE("more wanted rows than the head computes at once") {
  TinyShape shape;
  shape.n_layers = 1;
  const TinyPlan tiny(shape);
  const auto tokens = random_tokens(150, shape.n_vocab, 3);
  TestSession::Options options;
  options.n_ctx = 160, options.n_batch = 150;
  TestSession session(tiny.plan(), options);
  const auto logits = session.feed(tokens);
  compare(logits, reference_logits(tiny.plan(), tokens), bound(shape, false));
  const auto best = session.argmax(tokens);
  for (size_t i = 0; i < tokens.size(); ++i) {
    const auto row = logits.begin() + static_cast<ptrdiff_t>(i * shape.n_vocab);
    CHECK(best[i] == std::max_element(row, row + shape.n_vocab) - row);
  }
}

TEST_CASE("candidates are the largest logits in order, from a graph, kernel by kernel and in a batch") {
  TinyShape shape;
  shape.n_layers = 1;
  const TinyPlan tiny(shape);
  const auto tokens = random_tokens(70, shape.n_vocab, 4);  // more rows than the head computes at once
  TestSession::Options options;
  options.n_ctx = 80, options.n_batch = 70;
  for (const uint32_t n_top : {1u, 40u, 100u}) {
    for (const char* prebuilt : {"0", "1"}) {
      CAPTURE(n_top);
      CAPTURE(prebuilt);
      options.n_top = n_top;
      options.settings = {{"prebuilt", prebuilt}};
      TestSession session(tiny.plan(), options);
      const auto check = [&](const std::vector<apr_candidate>& top, const std::vector<float>& logits) {
        REQUIRE(top.size() == logits.size() / shape.n_vocab * n_top);
        int wrong = 0;
        for (size_t row = 0; row < logits.size() / shape.n_vocab; ++row) {
          const float* x = logits.data() + row * shape.n_vocab;
          std::vector<int32_t> order(shape.n_vocab);
          std::iota(order.begin(), order.end(), 0);
          std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return x[a] > x[b]; });
          for (size_t i = 0; i < n_top; ++i)
            wrong += top[row * n_top + i].token != order[i] || top[row * n_top + i].logit != x[order[i]];
        }
        CHECK(wrong == 0);
      };
      const auto batch = session.feed(tokens);
      check(session.top(tokens), batch);
      const auto one = session.feed_single({tokens[69]}, 69);
      check(session.top({tokens[69]}, 69), one);
      check(session.top({tokens[69]}, 69, 0, APR_STEP_NO_GRAPH), one);
      CHECK(session.info().compiles_after_load == 0);
    }
  }
  options.settings.clear();
  options.n_top = 0;
  TestSession none(tiny.plan(), options);
  CHECK_THROWS_WITH(none.top({1}), "candidates are wanted, but the session was loaded for none (n_top = 0)");
  options.n_top = shape.n_vocab + 1;
  CHECK_THROWS_WITH(TestSession(tiny.plan(), options), doctest::Contains("candidates"));
}

TEST_CASE("the graph gives the bits of its kernels launched one by one") {
  TinyShape shape;
  shape.format = "q4_k", shape.qk_norm = true;
  const TinyPlan tiny(shape);
  const auto tokens = random_tokens(20, shape.n_vocab, 5);
  TestSession session(tiny.plan(), {});
  const auto graph = session.feed_single(tokens),
             eager = session.feed_single(tokens, 0, 0, APR_STEP_NO_GRAPH);
  CHECK(same_bits(graph, eager));
  TestSession::Options options;
  options.settings = {{"no_graph", "1"}};
  TestSession plain(tiny.plan(), options);
  CHECK(same_bits(plain.feed_single(tokens), graph));
}

TEST_CASE("steps begun ahead give what steps that were asked for give") {
  TinyShape shape;
  shape.format = "q4_k";
  const TinyPlan tiny(shape);
  const auto prompt = random_tokens(11, shape.n_vocab, 7), other = random_tokens(5, shape.n_vocab, 8);
  TestSession::Options options;
  options.n_ctx = 24;
  TestSession session(tiny.plan(), options);
  // The same walk with each of them: greedy to the end of the context, with turns that a hint does not foresee.
  const auto walk = [&](uint32_t flags) {
    std::vector<int32_t> ids;
    std::vector<float> logits;
    const auto one = [&](int32_t token, int32_t position, int32_t sequence = 0) {
      ids.push_back(session.argmax({token}, position, sequence, flags).at(0));
    };
    const auto greedy = [&](int32_t from, int32_t to, int32_t sequence = 0) {
      for (int32_t p = from; p < to; ++p) one(ids.back(), p, sequence);
    };
    ids = {session.argmax(prompt).back()};
    greedy(11, 24);                                                 // the last hint points past the context
    one(ids.back(), 15), greedy(16, 18);                            // back to an earlier position
    one(static_cast<int32_t>(shape.n_vocab) - 1 - ids.back(), 18);  // another token than foreseen
    greedy(19, 20);
    ids.push_back(session.argmax(other, 0, 1).back());  // a batch of another sequence
    greedy(5, 7, 1);
    one(ids.back(), 20, 0);                                    // the position foreseen, of another sequence
    logits = session.feed_single({ids.back()}, 21, 0, flags);  // logits, where only the argmax was foreseen
    one(3, 22);
    const auto after = session.feed(other, 7, 1);
    logits.insert(logits.end(), after.begin(), after.end());
    return std::pair(ids, logits);
  };
  const auto [ids, logits] = walk(0);
  const auto [hinted_ids, hinted_logits] = walk(APR_STEP_GREEDY);
  CHECK(ids == hinted_ids);
  CHECK(same_bits(logits, hinted_logits));
  const auto [eager_ids, eager_logits] = walk(APR_STEP_GREEDY | APR_STEP_NO_GRAPH);
  CHECK(ids == eager_ids);
  CHECK(same_bits(logits, eager_logits));
}

TEST_CASE("a prompt run again after another one gives the same bits") {
  TinyShape shape;
  shape.format = "q8_0";
  const TinyPlan tiny(shape);
  const auto a = random_tokens(17, shape.n_vocab, 1), b = random_tokens(30, shape.n_vocab, 2);
  TestSession session(tiny.plan(), {});
  const auto first = session.feed(a), other = session.feed_single(b), again = session.feed(a);
  CHECK(same_bits(first, again));
  CHECK(same_bits(other, session.feed_single(b)));
}

TEST_CASE("sequences do not see each other") {
  TinyShape shape;
  const TinyPlan tiny(shape);
  const auto a = random_tokens(6, shape.n_vocab, 1), b = random_tokens(6, shape.n_vocab, 2);
  TestSession session(tiny.plan(), {});
  const auto alone_a = session.feed_single(a), alone_b = session.feed_single(b, 0, 1);
  // In one batch: all of a, then all of b, and interleaved in pairs.
  std::vector<int32_t> tokens = a, positions = {0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5}, sequences(6, 0);
  tokens.insert(tokens.end(), b.begin(), b.end());
  sequences.resize(12, 1);
  const auto together = session.step(tokens, positions, sequences);
  std::vector<double> expected(alone_a.begin(), alone_a.end());
  expected.insert(expected.end(), alone_b.begin(), alone_b.end());
  compare(together, expected, 1e-6);
  std::vector<float> pairs_a, pairs_b;
  for (int32_t i = 0; i < 6; ++i) {
    const auto pair = session.step({b[static_cast<size_t>(i)], a[static_cast<size_t>(i)]}, {i, i}, {1, 0});
    pairs_b.insert(pairs_b.end(), pair.begin(), pair.begin() + shape.n_vocab);
    pairs_a.insert(pairs_a.end(), pair.begin() + shape.n_vocab, pair.end());
  }
  compare(pairs_a, {alone_a.begin(), alone_a.end()}, 1e-6);
  compare(pairs_b, {alone_b.begin(), alone_b.end()}, 1e-6);
}

TEST_CASE("a lower position discards what followed it") {
  TinyShape shape;
  const TinyPlan tiny(shape);
  auto tokens = random_tokens(12, shape.n_vocab, 1);
  TestSession session(tiny.plan(), {});
  session.feed(tokens);
  tokens[5] = (tokens[5] + 1) % 300;
  const auto tail = session.feed({tokens.begin() + 5, tokens.end()}, 5);
  const auto reference = reference_logits(tiny.plan(), tokens);
  compare(tail, {reference.begin() + 5 * shape.n_vocab, reference.end()}, bound(shape, false));
  CHECK_THROWS_WITH_AS(session.feed({1}, 13), "sequence 0 begins at position 13, but only 12 are stored",
                       StatusError);
}

TEST_CASE("bad batches are refused and leave the session usable") {
  TinyShape shape;
  const TinyPlan tiny(shape);
  TestSession session(tiny.plan(), {});
  CHECK_THROWS_WITH_AS(session.step({300}, {0}, {0}), "token 300 at index 0 is outside the vocabulary of 300",
                       StatusError);
  CHECK_THROWS_WITH_AS(session.step({-1}, {0}, {0}), "token -1 at index 0 is outside the vocabulary of 300",
                       StatusError);
  CHECK_THROWS_WITH_AS(session.step({1}, {64}, {0}), "position 64 at index 0 is outside the context of 64",
                       StatusError);
  CHECK_THROWS_WITH_AS(session.step({1}, {0}, {2}), "sequence 2 at index 0; this session has 2", StatusError);
  CHECK_THROWS_WITH_AS(session.step({1, 2}, {0, 2}, {0, 0}),
                       "sequence 0: position 2 at index 1 where 1 is next", StatusError);
  CHECK_THROWS_WITH_AS(session.step({1}, {1}, {0}), "sequence 0 begins at position 1, but only 0 are stored",
                       StatusError);
  CHECK_THROWS_WITH_AS(session.feed(random_tokens(33, 300, 1)),
                       "a step of 33 tokens; this session takes 1 to 32", StatusError);
  const auto tokens = random_tokens(5, shape.n_vocab, 1);
  compare(session.feed(tokens), reference_logits(tiny.plan(), tokens), bound(shape, false));
}

TEST_CASE("taps: a fused session reports what it materialises, an unfused one every stage") {
  TinyShape shape;
  shape.qk_norm = true;
  const TinyPlan tiny(shape);
  std::set<std::string> all;
  for (uint32_t i = 0; i < tiny.plan().n_ops; ++i) all.insert(tiny.plan().ops[i]->stage);
  struct Seen {
    std::set<std::string> stages;
    std::vector<float> logits;
    bool sizes = true;
    const apr_plan* plan;
  };
  const auto tap = [](void* user, const char* stage, const float* data, uint32_t rows, uint32_t width) {
    auto& seen = *static_cast<Seen*>(user);
    seen.stages.insert(stage);
    for (uint32_t i = 0; i < seen.plan->n_ops; ++i)
      if (std::string(seen.plan->ops[i]->stage) == stage)
        seen.sizes = seen.sizes && seen.plan->values[seen.plan->ops[i]->out]->width == width;
    if (std::string(stage) == "logits") seen.logits.assign(data, data + size_t{rows} * width);
  };
  for (const bool fused : {true, false}) {
    CAPTURE(fused);
    TestSession::Options options;
    if (!fused) options.settings = {{"no_fusion", "1"}};
    TestSession session(tiny.plan(), options);
    for (const uint32_t n : {1u, 12u}) {
      CAPTURE(n);
      const auto tokens = random_tokens(n, shape.n_vocab, 1);
      const auto plain = session.feed(tokens);
      Seen seen;
      seen.plan = &tiny.plan();
      apr_error error = {sizeof(apr_error), {}};
      REQUIRE(cuda_backend().tap(session.session(), tap, &seen, &error) == APR_OK);
      const auto tapped = session.feed(tokens);
      REQUIRE(cuda_backend().tap(session.session(), nullptr, nullptr, &error) == APR_OK);
      CHECK(same_bits(plain, tapped));
      CHECK(same_bits(seen.logits, plain));
      CHECK(seen.sizes);
      CHECK(std::includes(all.begin(), all.end(), seen.stages.begin(), seen.stages.end()));
      CHECK(seen.stages.contains("blk.1.ffn_residual"));
      if (!fused) CHECK(seen.stages == all);
      compare(plain, reference_logits(tiny.plan(), tokens), bound(shape, false));
    }
  }
}

TEST_CASE("kernels that were built with the program serve without a compiler") {
  const std::string folder = data_folder() + "/ptx-generic";
  if (!std::filesystem::exists(folder + "/linear.f32.ptx")) {
    MESSAGE("skipped: no kernels were built with the program (no NVRTC then)");
    return;
  }
  std::vector<TinyShape> shapes(3);
  shapes[0].format = "q4_k", shapes[0].v_format = "q6_k", shapes[0].bias = true, shapes[0].qk_norm = true;
  shapes[1].rope = APR_ROPE_HALVES, shapes[1].rope_dims = 32, shapes[1].window = 5, shapes[1].n_heads = 7,
  shapes[1].n_kv_heads = 1;
  shapes[2].n_embd = 250, shapes[2].n_ff = 131, shapes[2].n_vocab = 97, shapes[2].tied = true;
  for (const TinyShape& shape : shapes) {
    const TinyPlan tiny(shape);
    const auto tokens = random_tokens(21, shape.n_vocab, 7);
    TestSession::Options options;
    options.settings = {{"prebuilt", "1"}};
    TestSession session(tiny.plan(), options);
    REQUIRE(session.log().size() == 1);
    CHECK(session.log()[0] ==
          "setting prebuilt=1; kernels that were built with the program serve: right, but many times slower");
    const auto reference = reference_logits(tiny.plan(), tokens);
    compare(session.feed(tokens), reference, 2e-6);
    compare(session.feed_single(tokens), reference, 2e-6);
    CHECK(same_bits(session.feed_single(tokens), session.feed_single(tokens, 0, 0, APR_STEP_NO_GRAPH)));
    CHECK(session.info().compiles_after_load == 0);
    CHECK(std::string(session.kernels()[0].kernel) == "generic.embed");
  }
}

TEST_CASE("what was chosen is told per tensor") {
  TinyShape shape;
  shape.format = "q4_k", shape.v_format = "q6_k";
  const TinyPlan tiny(shape);
  TestSession session(tiny.plan(), {});
  std::set<std::string> weights;
  for (const apr_kernel_info& k : session.kernels()) {
    CHECK(std::string(k.kernel) != "");
    CHECK(std::string(k.config).find("key=") != std::string::npos);
    if (std::string(k.weight).empty()) continue;
    weights.insert(k.weight);
    CHECK(std::string(k.layout) == "planar");
    CHECK(std::string(k.format).starts_with("q"));
  }
  CHECK(weights.size() == tiny.plan().n_weights);
  uint64_t bytes = 0;
  for (uint32_t i = 1; i < tiny.plan().n_weights; ++i) bytes += tiny.plan().weights[i]->bytes;
  CHECK(session.info().token_bytes == bytes + tiny.plan().weights[0]->bytes / tiny.plan().weights[0]->n);
  CHECK(session.info().kv_token_bytes == 2u * 2 * 2 * 2 * 64);
}

TEST_CASE("a kernel cache that cannot be written is said once, on the caller's thread") {
  TinyPlan tiny({});
  TestSession::Options options;
  options.settings = {{"kernel_cache", "/dev/null/kernels"}};
  TestSession session(tiny.plan(), options);
  REQUIRE(session.log().size() == 1);
  CHECK(session.log()[0].find("kernel cache /dev/null/kernels: ") == 0);
  CHECK(session.log()[0].find("stay in memory") != std::string::npos);
}

TEST_CASE("sizes that no session can have") {
  TinyPlan tiny({});
  const auto refused = [&](uint32_t n_ctx, uint32_t n_sequences, uint32_t n_batch, const char* message) {
    TestSession::Options options;
    options.n_ctx = n_ctx, options.n_sequences = n_sequences, options.n_batch = n_batch;
    CHECK_THROWS_WITH_AS(TestSession(tiny.plan(), options), message, StatusError);
  };
  refused(0, 1, 8, "n_ctx is 0; 1 to 1073741824 are possible");
  refused(64, 0, 8, "n_sequences is 0; 1 to 1048576 are possible");
  // A grid's second dimension, in which some kernels have a CTA for each token, ends there.
  refused(64, 1, 65536, "n_batch is 65536; 1 to 65535 are possible");
}

TEST_CASE("plans that cannot be computed are refused by name") {
  TinyShape shape;
  shape.n_layers = 1;
  {
    TinyPlan tiny(shape);
    tiny.op("blk.0.ffn_act").kind = static_cast<apr_op_kind>(99);
    CHECK_THROWS_WITH_AS(TestSession(tiny.plan(), {}),
                         "stage blk.0.ffn_act: operation kind 99 is newer than this backend", StatusError);
  }
  {
    TinyPlan tiny(shape);
    tiny.op("blk.0.attn_q").weight[0] = 2;
    CHECK_THROWS_AS(TestSession(tiny.plan(), {}), StatusError);
  }
  {
    TinyPlan tiny(shape);
    TestSession::Options options;
    options.settings = {{"no_graph", "yes"}};
    CHECK_THROWS_WITH_AS(TestSession(tiny.plan(), options), "setting no_graph=yes: it is 0 or 1",
                         StatusError);
    options.settings = {{"kernel_cache_mb", "-1"}};
    CHECK_THROWS_WITH_AS(TestSession(tiny.plan(), options),
                         "setting kernel_cache_mb=-1: it is a number of megabytes, 0 for no bound",
                         StatusError);
    options.settings = {{"data_dir", "/nowhere"}};
    CHECK_THROWS_WITH_AS(TestSession(tiny.plan(), options),
                         "setting data_dir=/nowhere: there is no folder /nowhere/ptx-templates", StatusError);
  }
}
