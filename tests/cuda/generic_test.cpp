// The generic kernels (ptx-templates/generic), compiled for the host with warps of one lane, against the emulator: what the
// PTX computes on a machine without NVRTC.
#include <doctest/doctest.h>

#include <cmath>
#include <random>
#include <vector>

#define APR_GENERIC_HOST
#include "apr/codec.h"
#include "plugins/quant-f16/f16.h"
#include "plugins/quant-q4k/codec.h"
#include "ptx-templates/args.h"
#include "tests/cuda/fake_driver/emulate.h"

// Each file defines one kernel; a namespace and a prelude of its own make them live together.
#include "ptx-templates/generic/generic.h"
#include "ptx-templates/generic/tile_rope.h"
namespace rms_norm_kernel {
#include "ptx-templates/generic/rms_norm.cu"
}
namespace rope_kernel {
#include "ptx-templates/generic/rope.cu"
}
namespace rope_kv_kernel {
#include "ptx-templates/generic/rope_kv.cu"
}
namespace attention_kernel {
#include "ptx-templates/generic/attention.cu"
}
namespace argmax_kernel {
#include "ptx-templates/generic/argmax.cu"
}
namespace top_k_kernel {
#include "ptx-templates/generic/top_k.cu"
}
namespace linear_q4k {
namespace spec {
using Codec = apr::Q4K;
using Layout = apr::Q4K::RowMajor;
}  // namespace spec
#include "ptx-templates/generic/linear.cu"
}  // namespace linear_q4k
namespace linear_f16 {
namespace spec {
using Codec = apr::F16;
using Layout = apr::F16::RowMajor;
}  // namespace spec
#include "ptx-templates/generic/linear.cu"
}  // namespace linear_f16
namespace embed_f16 {
namespace spec {
using Codec = apr::F16;
using Layout = apr::F16::RowMajor;
}  // namespace spec
#include "ptx-templates/generic/embed.cu"
}  // namespace embed_f16
#define APR_ELEMENTWISE(name, op)  \
  namespace name {                 \
  namespace spec {                 \
  enum { kAdd, kSwiglu, kGather }; \
  constexpr int kOp = op;          \
  }
APR_ELEMENTWISE(add_kernel, 0)
#include "ptx-templates/generic/elementwise.cu"
}
APR_ELEMENTWISE(swiglu_kernel, 1)
#include "ptx-templates/generic/elementwise.cu"
}
APR_ELEMENTWISE(gather_kernel, 2)
#include "ptx-templates/generic/elementwise.cu"
}

using namespace apr;

namespace {

constexpr int kRows = 3;

template <typename Args>
void run(void (*kernel)(const Args&), const GenericShape& shape, const Args& args) {
  host::shape = shape;
  for (host::row = 0; host::row < kRows + 2; ++host::row) kernel(args);  // rows past those in use do nothing
}

std::string prelude(const std::string& op, const GenericShape& s, const std::string& layout = "") {
  std::string text = "// generic: " + op + " float m=any\nnamespace apr::spec {\n";
  const auto constant = [&](const char* name, int value) {
    text += std::string("constexpr int ") + name + " = " + std::to_string(value) + ";\n";
  };
  constant("kM", 0), constant("kK", s.k), constant("kN", s.n), constant("kGroups", s.groups),
      constant("kHeads", s.heads), constant("kKvHeads", s.kv_heads);
  constant("kHeadDim", s.head_dim), constant("kRopeDims", s.rope_dims), constant("kRopeKind", s.rope_kind),
      constant("kWindow", s.window), constant("kTopK", s.top_k);
  for (const char* zero : {"kEpilogue", "kNorm", "kInput", "kOutput", "kQkNorm", "kFused", "kSwiglu"})
    constant(zero, 0);
  if (!layout.empty())
    text += "struct Segment0 { using Layout = " + layout +
            "; static constexpr int kN = " + std::to_string(s.n) +
            "; static constexpr bool kBias = " + (s.bias != 0 ? "true" : "false") + "; };\n";
  return text + "}  // namespace apr::spec\n";
}

std::vector<float> normal(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> draw;
  std::vector<float> v(n);
  for (float& x : v) x = draw(random);
  return v;
}
std::vector<uint16_t> halves(size_t n, uint32_t seed) {
  std::vector<uint16_t> v;
  for (const float x : normal(n, seed)) v.push_back(to_f16(x));
  return v;
}

void same(const std::vector<float>& a, const std::vector<float>& b, double tolerance) {
  double error = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) error += (a[i] - b[i]) * (a[i] - b[i]), size += b[i] * b[i];
  CHECK(std::sqrt(error / size) <= tolerance);
}

const int32_t m = kRows;
const StepState state = {kRows, kRows, {0, 0}};
const std::vector<int32_t> positions = {4, 5, 2}, sequences = {0, 0, 1};

}  // namespace

TEST_CASE("generic norms, of rows and of heads") {
  for (const int groups : {1, 5}) {
    GenericShape shape{};
    shape.k = 37, shape.groups = groups;
    const auto x = normal(static_cast<size_t>(kRows * groups * 37), 1), w = normal(37, 2);
    std::vector<float> y(x.size(), NAN), expected(x.size(), NAN);
    NormArgs a{};
    a.m = &m, a.x = x.data(), a.weight = w.data(), a.x_stride = static_cast<uint32_t>(groups * 37),
    a.eps = 1e-5f;
    a.y = y.data();
    run(rms_norm_kernel::apr_kernel, shape, a);
    a.y = expected.data();
    fake::emulate(prelude("rms_norm", shape), &a);
    same(y, expected, 1e-6);
  }
}

TEST_CASE("generic linears and embeddings, blocks that end within a row included") {
  std::mt19937 random(3);
  GenericShape shape{};
  shape.k = 512, shape.n = 33, shape.bias = 1;
  std::vector<uint8_t> q4k(33 * 2 * 144);
  for (uint8_t& b : q4k) b = static_cast<uint8_t>(random());
  for (size_t b = 0; b < q4k.size(); b += 144) q4k[b + 1] = q4k[b + 3] = 0x2c;  // d and dmin near 0.06
  const auto x = normal(kRows * 512, 4), bias = normal(33, 5);
  std::vector<float> y(kRows * 33, NAN), expected(y);
  LinearArgs a{};
  a.m = &m, a.x = x.data(), a.w[0].plane[0] = q4k.data(), a.bias[0] = bias.data(), a.y_stride[0] = 33;
  a.y[0] = y.data();
  run(linear_q4k::apr_kernel, shape, a);
  a.y[0] = expected.data();
  fake::emulate(prelude("linear", shape, "apr::Q4K::RowMajor"), &a);
  same(y, expected, 1e-6);

  shape.k = 45, shape.bias = 0;  // rows of whole blocks in memory, the last one part padding
  const size_t blocks = (45 + F16::kBlock - 1) / F16::kBlock;
  auto weights = halves(33 * blocks * F16::kBlock, 6);
  a.w[0].plane[0] = reinterpret_cast<const uint8_t*>(weights.data());
  a.y[0] = y.data();
  run(linear_f16::apr_kernel, shape, a);
  a.y[0] = expected.data();
  fake::emulate(prelude("linear", shape, "apr::F16::RowMajor"), &a);
  same(y, expected, 1e-6);

  const std::vector<int32_t> tokens = {0, 32, 7};
  std::vector<float> rows(kRows * 45, NAN), expected_rows(rows);
  EmbedArgs e{};
  e.m = &m, e.tokens = tokens.data(), e.w = a.w[0], e.y = rows.data();
  run(embed_f16::apr_kernel, shape, e);
  e.y = expected_rows.data();
  fake::emulate(prelude("embed", shape, "apr::F16::RowMajor"), &e);
  CHECK(rows == expected_rows);
}

TEST_CASE("generic rotation, KV append and attention") {
  for (const int kind : {static_cast<int>(kRopeAdjacent), static_cast<int>(kRopeHalves)})
    for (const int window : {0, 3}) {
      GenericShape shape{};
      shape.heads = 6, shape.kv_heads = 2, shape.head_dim = 24, shape.rope_dims = 16, shape.rope_kind = kind,
      shape.window = window;
      const uint32_t n_ctx = 9;
      const auto q = normal(kRows * 144, 1), k = normal(kRows * 48, 2), v = normal(kRows * 48, 3),
                 frequencies = normal(8, 4);
      auto k_cache = halves(2 * 2 * n_ctx * 24, 5), v_cache = halves(2 * 2 * n_ctx * 24, 6),
           k_expected = k_cache, v_expected = v_cache;
      std::vector<float> rotated(kRows * 144, NAN), rotated_expected(rotated), out(rotated),
          out_expected(rotated);
      AttentionArgs a{};
      a.state = &state, a.positions = positions.data(), a.sequences = sequences.data();
      a.q = q.data(), a.k = k.data(), a.v = v.data(), a.q_stride = a.out_stride = 144,
      a.k_stride = a.v_stride = 48;
      a.n_ctx = n_ctx, a.inv_freq = frequencies.data(), a.rope_scale = 1.5f, a.scale = 0.2f;

      a.q_out = rotated.data();
      run(rope_kernel::apr_kernel, shape, a);
      a.q_out = rotated_expected.data();
      fake::emulate(prelude("rope", shape), &a);
      same(rotated, rotated_expected, 1e-6);

      a.k_cache = k_cache.data(), a.v_cache = v_cache.data();
      run(rope_kv_kernel::apr_kernel, shape, a);
      GenericShape store = shape;
      store.heads = 0, store.rope_kind = kRopeNone;
      a.k_cache = k_expected.data(), a.v_cache = v_expected.data();
      fake::emulate(prelude("rope_kv", store), &a);
      CHECK(k_cache == k_expected);
      CHECK(v_cache == v_expected);

      a.out = out.data();
      run(attention_kernel::apr_kernel, shape, a);
      a.out = out_expected.data();
      fake::emulate(prelude("attention", shape), &a);
      same(out, out_expected, 1e-6);
    }
}

TEST_CASE("generic elementwise operations, argmax and candidates") {
  GenericShape shape{};
  shape.k = 37;
  const auto x = normal(kRows * 37, 1), z = normal(kRows * 37, 2);
  const std::vector<int32_t> rows = {2, 0, 1};
  std::vector<float> y(x.size(), NAN), expected(x.size(), NAN);
  ElementwiseArgs a{};
  a.m = &m, a.a = x.data(), a.b = z.data(), a.rows = rows.data();
  const auto check = [&](void (*kernel)(const ElementwiseArgs&), const char* op) {
    a.y = y.data();
    run(kernel, shape, a);
    a.y = expected.data();
    fake::emulate(prelude(op, shape), &a);
    same(y, expected, 1e-6);
  };
  check(add_kernel::apr_kernel, "add");
  check(swiglu_kernel::apr_kernel, "swiglu");
  check(gather_kernel::apr_kernel, "gather");

  shape.n = 37;
  std::vector<float> values = x;
  values[3] = values[9] = 100.0f;  // equal: the lower index
  for (int i = 37; i < 74; ++i) values[static_cast<size_t>(i)] = -INFINITY;
  values[80] = NAN;
  std::vector<int32_t> best(kRows, -7);
  ArgmaxArgs g{};
  g.m = &m, g.x = values.data(), g.index = best.data();
  run(argmax_kernel::apr_kernel, shape, g);
  CHECK(best == std::vector<int32_t>{3, 0, -1});

  for (const int k : {1, 5, 37}) {
    shape.top_k = k;
    std::vector<Candidate> found(static_cast<size_t>(kRows * k), {0, -7}), wanted = found;
    TopKArgs t{&m, values.data(), found.data(), nullptr};
    run(top_k_kernel::apr_kernel, shape, t);
    t.best = wanted.data();
    fake::emulate(prelude("top_k", shape), &t);
    for (size_t i = 0; i < found.size(); ++i) {
      CAPTURE(i);
      CHECK(found[i].index == wanted[i].index);
      CHECK((found[i].value == wanted[i].value || (found[i].index == -1 && std::isnan(found[i].value))));
    }
  }
}
