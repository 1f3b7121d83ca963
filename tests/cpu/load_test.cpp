// Opening devices, and plans that contradict themselves.
#include <doctest/doctest.h>

#include <cstring>
#include <functional>

#include "support.h"

using namespace apr::test;

namespace {

struct Opened {
  apr_status status;
  std::string error;
};
Opened open_with(const char* key, const char* value, uint32_t threads = 1, uint32_t index = 0) {
  const apr_setting s{key, value};
  apr_device_options o{};
  o.struct_size = sizeof(o);
  o.settings = &s;
  o.n_settings = 1;
  o.threads = threads;
  o.index = index;
  apr_error e{};
  e.struct_size = sizeof(e);
  apr_device* device = nullptr;
  const apr_status status = backend().open(&o, &device, &e);
  CHECK((device != nullptr) == (status == APR_OK));
  backend().close(device);
  return {status, e.message};
}

}  // namespace

TEST_CASE("devices") {
  uint32_t count = 0;
  apr_error e{};
  e.struct_size = sizeof(e);
  CHECK(backend().devices(&count, &e) == APR_OK);
  CHECK(count == 1);
  CHECK(open_with("isa", "portable").status == APR_OK);
  CHECK(open_with("of another backend", "x").status == APR_OK);
  const Opened bad = open_with("isa", "sse9");
  CHECK(bad.status == APR_INVALID);
  CHECK_MESSAGE(bad.error.find("portable, avx2 or avx512") != std::string::npos, bad.error);
  CHECK(open_with("weights", "copied").status == APR_OK);
  const Opened elsewhere = open_with("weights", "elsewhere");
  CHECK(elsewhere.status == APR_INVALID);
  CHECK_MESSAGE(elsewhere.error.find("mapped or copied") != std::string::npos, elsewhere.error);
  CHECK(open_with("isa", "portable", 1, 1).status == APR_NO_DEVICE);
  CHECK(open_with("isa", "portable", 100000).status == APR_INVALID);
  backend().close(nullptr);
  backend().unload(nullptr);
}

TEST_CASE("device info and bandwidth") {
  SmallModel model(kFloat32);
  Loaded loaded(model.plan(), {"", 0});  // as many threads as cores
  apr_device_info info{};
  info.struct_size = sizeof(info);
  apr_error e{};
  e.struct_size = sizeof(e);
  REQUIRE(backend().device_info(loaded.device(), &info, &e) == APR_OK);
  CHECK(std::strlen(info.name) > 0);
  CHECK(instruction_sets().back() == info.arch);
  CHECK(info.units >= 1);
  CHECK(info.memory_total >= info.memory_free);
  CHECK(info.memory_free > 0);
  // A caller of an older version has a smaller struct: nothing is written behind its end.
  apr_device_info old{};
  std::memset(&old, 0x55, sizeof(old));
  old.struct_size = offsetof(apr_device_info, detail);
  REQUIRE(backend().device_info(loaded.device(), &old, &e) == APR_OK);
  CHECK(std::string(old.name) == info.name);
  CHECK(old.detail[0] == 0x55);
  double gbs = 0;
  REQUIRE(backend().measure_bandwidth(loaded.device(), &gbs, &e) == APR_OK);
  CHECK(gbs > 0.1);
  CHECK(gbs < 10000);
}

TEST_CASE("copied weights give the same bits") {
  SmallModel model(kInt32);
  const std::vector<Token> tokens = count_up(20);
  Loaded mapped(model.plan()), copied(model.plan(), {"", 2, "copied"});
  REQUIRE_MESSAGE(copied.ok(), copied.error());
  const std::vector<float> expected = mapped.step(tokens).logits;
  // The caller's weights are no longer read.
  for (apr_weight& w : model.maker.weights) std::memset(const_cast<void*>(w.data), 0xff, w.bytes);
  CHECK(copied.step(tokens).logits == expected);
}

TEST_CASE("plans that contradict themselves") {
  struct Fault {
    const char* text;
    std::function<void(SmallModel&)> bend;
    apr_status status = APR_INVALID;
  };
  const auto op = [](SmallModel& m, const std::string& stage) -> apr_op& {
    for (apr_op& o : m.maker.ops)
      if (stage == o.stage) return o;
    FAIL("no stage " << stage);
    return m.maker.ops[0];
  };
  const std::vector<Fault> faults = {
      {"blk.0.attn_norm: operation kind 99",
       [&](SmallModel& m) { op(m, "blk.0.attn_norm").kind = static_cast<apr_op_kind>(99); }, APR_UNSUPPORTED},
      {"blk.0.attn_q refers to value 4000", [&](SmallModel& m) { op(m, "blk.0.attn_q").in[0] = 4000; }},
      {"blk.0.attn_q refers to value -1", [&](SmallModel& m) { op(m, "blk.0.attn_q").in[0] = -1; }},
      {"before an operation has written it",
       [&](SmallModel& m) { op(m, "blk.0.attn_norm").in[0] = op(m, "blk.1.attn_residual").out; }},
      {"which embed has written", [&](SmallModel& m) { op(m, "blk.0.attn_norm").out = 0; }},
      {"blk.0.attn_k refers to weight 999", [&](SmallModel& m) { op(m, "blk.0.attn_k").weight[0] = 999; }},
      {"blk.0.attn_v: rows of its weight",
       [&](SmallModel& m) { op(m, "blk.0.attn_v").weight[0] = op(m, "blk.0.attn_q").weight[0]; }},
      {"blk.0.attn_q: length of its bias",
       [&](SmallModel& m) { op(m, "blk.0.attn_q").vector[0] = op(m, "blk.0.attn_k").vector[0]; }},
      {"blk.1.attn_norm: length of its weight", [&](SmallModel& m) { op(m, "blk.1.attn_norm").n_heads = 2; }},
      {"blk.1.attn_norm: 0 groups", [&](SmallModel& m) { op(m, "blk.1.attn_norm").n_heads = 0; }},
      {"rotates 15 of 24", [&](SmallModel& m) { op(m, "blk.1.attn_k_rope").rope_dims = 15; }},
      {"rotary kind 7",
       [&](SmallModel& m) { op(m, "blk.1.attn_k_rope").rope = static_cast<apr_rope_kind>(7); },
       APR_UNSUPPORTED},
      {"8 heads of 24 columns over 3 KV heads",
       [&](SmallModel& m) { op(m, "blk.0.attn_out").n_kv_heads = 3; }},
      {"width of k", [&](SmallModel& m) { op(m, "blk.0.attn_out").n_kv_heads = 4; }},
      {"head_op", [](SmallModel& m) { m.maker.c.head_op = 10000; }},
      {"attention among the operations of wanted tokens", [](SmallModel& m) { m.maker.c.head_op = 3; },
       APR_UNSUPPORTED},
      {"the vocabulary has 100", [](SmallModel& m) { m.maker.c.n_vocab = 100; }},
      {"logits are value 999", [](SmallModel& m) { m.maker.c.logits = 999; }},
      {"not computed by one of the operations from head_op",
       [](SmallModel& m) {
         m.maker.c.logits = m.maker.ops[0].out;
         m.maker.c.n_vocab = 192;
       }},
      {"w1 has", [](SmallModel& m) { m.maker.weights[1].bytes -= 1; }},
      {"w1 has no data", [](SmallModel& m) { m.maker.weights[1].data = nullptr; }},
      {"w1 has no format", [](SmallModel& m) { m.maker.weights[1].format = nullptr; }},
  };
  for (const Fault& f : faults) {
    CAPTURE(f.text);
    SmallModel model(kInt32);
    (void)model.plan();  // lists are made; what follows bends what they point to
    f.bend(model);
    Loaded loaded(model.maker.c);
    CHECK_FALSE(loaded.ok());
    CHECK(loaded.status() == f.status);
    CHECK_MESSAGE(loaded.error().find(f.text) != std::string::npos, loaded.error());
  }
}

TEST_CASE("formats without kernels") {
  const auto fails = [](const apr_quant_format& format, bool precise) {
    SmallModel model(kInt32);
    for (apr_weight& w : model.maker.weights)
      if (w.format == &kInt32) w.format = &format;
    Loaded loaded(model.plan(), {}, {64, 1, 64, precise});
    CHECK_FALSE(loaded.ok());
    CHECK(loaded.status() == APR_UNSUPPORTED);
    return loaded.error();
  };
  apr_cpu_kernels set = *kInt32.cpu[0];
  const apr_cpu_kernels* sets[] = {&set};
  apr_quant_format format = kInt32;
  format.cpu = sets;
  format.n_cpu = 1;
  set.gemv_int = nullptr;
  CHECK(fails(format, false).find("w1: format test.int-32 has no gemv_int") != std::string::npos);
  set = *kInt32.cpu[0];
  set.unpack_int = nullptr;
  CHECK(fails(format, false).find("has no unpack_int") != std::string::npos);
  set = *kInt32.cpu[0];
  set.gemv_float = nullptr;
  CHECK(fails(format, true).find("has no gemv_float") != std::string::npos);
  // Kernels of a set above the bound do not count.
  set = *kInt32.cpu[0];
  set.isa = APR_ISA_AVX512;
  SmallModel model(kInt32);
  for (apr_weight& w : model.maker.weights)
    if (w.format == &kInt32) w.format = &format;
  CHECK_FALSE(Loaded(model.plan(), {"portable"}).ok());
}

TEST_CASE("sizes that no session can have") {
  SmallModel model(kFloat32);
  CHECK(Loaded(model.plan(), {}, {0, 1, 16}).status() == APR_INVALID);
  CHECK(Loaded(model.plan(), {}, {16, 0, 16}).status() == APR_INVALID);
  CHECK(Loaded(model.plan(), {}, {16, 1, 0}).status() == APR_INVALID);
  const Loaded huge(model.plan(), {}, {1u << 30, 1u << 20, 16});
  CHECK(huge.status() == APR_NO_MEMORY);
  CHECK_MESSAGE(huge.error().find("KV cache") != std::string::npos, huge.error());
}
