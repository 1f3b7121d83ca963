// Models that are wrong in one way: the message says what and where.
#include <doctest/doctest.h>

#include <cmath>

#include "tests/plan/sketch.h"

using namespace apr;
using namespace apr::test;

TEST_CASE("an unknown architecture is an error that lists the known ones") {
  Sketch sketch("llama");
  sketch.model.meta.set("general.architecture", std::string("gpt2"));
  CHECK(has(sketch.error(),
            "sketch.gguf: architecture 'gpt2' is not known to this program; it knows llama, mistral3, qwen2, "
            "qwen3"));
  sketch.model.meta.erase("general.architecture");
  CHECK(has(sketch.error(), "general.architecture"));
}

TEST_CASE("a vocabulary alone is no model") {
  Sketch sketch("qwen2");
  sketch.model.tensors.clear();
  CHECK(has(sketch.error(), "sketch.gguf: the file has no tensors"));
}

TEST_CASE("every required key is missed by name") {
  for (const char* key : {"block_count", "context_length", "embedding_length", "feed_forward_length",
                          "attention.head_count", "attention.layer_norm_rms_epsilon"}) {
    Sketch sketch("qwen2");
    sketch.erase(key);
    const std::string message = sketch.error();
    CHECK(has(message, std::string("qwen2.") + key));
    CHECK(has(message, "sketch.gguf"));
  }
  Sketch sketch("llama");
  sketch.erase("attention.head_count_kv");  // by the specification: as many as heads
  CHECK(has(sketch.error(),
            "tensor 'blk.0.attn_k.weight' has shape [32,64], but the hyper-parameters demand [64,64]"));
}

TEST_CASE("every tensor is missed by name") {
  for (const char* arch : {"llama", "mistral3", "qwen2", "qwen3"}) {
    const Sketch whole(arch);
    for (const Tensor& tensor : whole.model.tensors) {
      if (tensor.name == "output.weight") continue;  // then the head is tied
      Sketch sketch(arch);
      sketch.remove(tensor.name);
      const std::string message = sketch.error();
      CHECK(has(message, "'" + tensor.name + "'"));
      CHECK(has(message, "sketch.gguf"));
    }
  }
}

TEST_CASE("every tensor's shape is checked") {
  for (const char* arch : {"llama", "qwen2", "qwen3"}) {
    const Sketch whole(arch);
    for (const Tensor& tensor : whole.model.tensors) {
      for (size_t dim = 0; dim < tensor.dims.size(); ++dim) {
        Sketch sketch(arch);
        std::vector<uint64_t> dims = tensor.dims;
        dims[dim] += 32;
        sketch.tensor(tensor.name, dims);
        const std::string message = sketch.error();
        CAPTURE(tensor.name);
        CAPTURE(message);
        // A larger vocabulary is noticed where the head disagrees.
        const bool vocabulary = tensor.name == "token_embd.weight" && dim == 1;
        CHECK(has(message,
                  vocabulary ? "'output.weight' has shape [32,64]" : "'" + tensor.name + "' has shape"));
      }
    }
  }
  Sketch sketch("llama");
  sketch.tensor("blk.0.attn_q.weight", {64, 64, 1});
  CHECK(has(sketch.error(), "'blk.0.attn_q.weight' has shape [1,64,64]"));
  sketch.tensor("token_embd.weight", {64});
  CHECK(has(sketch.error(), "'token_embd.weight' has shape [64]; a matrix is expected"));
}

TEST_CASE("transposed weights are noticed where N != K") {
  Sketch sketch("llama");
  sketch.tensor("blk.1.ffn_down.weight", {64, 96});
  CHECK(has(sketch.error(),
            "'blk.1.ffn_down.weight' has shape [96,64], but the hyper-parameters demand [64,96] (N, K)"));
}

TEST_CASE("a size that disagrees with the declared type is an error that names the tensor") {
  Sketch sketch("llama");
  sketch.at("blk.1.ffn_up.weight").bytes -= 4;
  CHECK(has(sketch.error(),
            "tensor 'blk.1.ffn_up.weight' has 24572 bytes, but f32 of shape [96,64] takes 24576"));
  Sketch other("llama");
  other.at("blk.0.attn_q.weight").qtype = WeightQuantType::Q4_K;
  other.at("blk.0.attn_q.weight").format = "q4_k";
  CHECK(has(other.error(),
            "tensor 'blk.0.attn_q.weight': rows of 64 columns are no whole number of q4_k blocks"));
  Sketch norm("llama");
  norm.at("output_norm.weight").bytes = 8;
  CHECK(has(norm.error(), "tensor 'output_norm.weight' has 8 bytes"));
}

TEST_CASE("a format that nobody provides names the tensor") {
  Sketch sketch("llama");
  sketch.at("blk.1.attn_k.weight").qtype = WeightQuantType::Extension;
  sketch.at("blk.1.attn_k.weight").format = "vendor.nf4";
  CHECK(
      has(sketch.error(), "tensor 'blk.1.attn_k.weight' has format 'vendor.nf4', and no plugin provides it"));
}

TEST_CASE("numbers that make no sense") {
  struct Case {
    const char* key;
    MetaValue value;
    const char* message;
  };
  const Case cases[] = {
      {"block_count", uint64_t{0}, "'llama.block_count' is 0"},
      {"block_count", uint64_t{1} << 40, "llama.block_count"},
      {"embedding_length", uint64_t{0}, "'llama.embedding_length' is 0"},
      {"embedding_length", int64_t{-64}, "llama.embedding_length"},
      {"embedding_length", std::string("64"), "llama.embedding_length"},
      {"context_length", uint64_t{1} << 32, "llama.context_length"},
      {"attention.head_count", uint64_t{0}, "'llama.attention.head_count' is 0"},
      {"attention.head_count", uint64_t{5},
       "'llama.attention.head_count_kv' is 2 in layer 0; it does not divide the 5 heads"},
      {"attention.head_count", uint64_t{6}, "does not divide embedding_length 64"},
      {"attention.head_count_kv", uint64_t{3},
       "'llama.attention.head_count_kv' is 3 in layer 0; it does not divide the 4 heads"},
      {"attention.head_count_kv", MetaArray(std::vector<int64_t>{2, 2, 2}), "has 3 numbers for 2 layers"},
      {"attention.head_count_kv", MetaArray(std::vector<int64_t>{2, 0}), "is 0 for layer 1"},
      {"attention.key_length", uint64_t{0}, "'llama.attention.key_length' is 0"},
      {"attention.value_length", uint64_t{8}, "keys have 16 columns a head"},
      {"attention.layer_norm_rms_epsilon", -1.0, "a small positive number"},
      {"attention.layer_norm_rms_epsilon", std::nan(""), "a small positive number"},
      {"rope.dimension_count", uint64_t{7},
       "'llama.rope.dimension_count' is 7; it must be even and at most the head size, 16"},
      {"rope.dimension_count", uint64_t{18}, "at most the head size, 16"},
      {"rope.freq_base", 0.0, "'llama.rope.freq_base' is 0"},
      {"rope.freq_base", INFINITY, "'llama.rope.freq_base' is inf"},
      {"rope.scaling.type", std::string("longrope"),
       "'llama.rope.scaling.type' is 'longrope'; known are none, linear and yarn"},
      {"rope.scaling.type", std::string("yarn"), "'llama.rope.scaling.factor' is missing"},
      {"rope.scaling.factor", -2.0, "'llama.rope.scaling.factor' is -2"},
      {"vocab_size", uint64_t{33},
       "key 'llama.vocab_size' is 33, but tensor 'token_embd.weight' has 32 rows"},
      {"expert_count", uint64_t{8}, "'llama.expert_count' is 8, and this program has no such feature"},
      {"attention.clamp_kqv", 8.0, "'llama.attention.clamp_kqv' is 8"},
      {"final_logit_softcapping", 30.0, "'llama.final_logit_softcapping' is 30"},
  };
  for (const Case& each : cases) {
    Sketch sketch("llama");
    sketch.set(each.key, each.value);
    const std::string message = sketch.error();
    CAPTURE(each.key);
    CAPTURE(message);
    CHECK(has(message, each.message));
    CHECK(has(message, "sketch.gguf"));
  }
}

TEST_CASE("neutral values of features that are not here are fine") {
  Sketch sketch("llama");
  sketch.set("expert_count", uint64_t{0});
  sketch.set("attention.clamp_kqv", 0.0);
  sketch.set("logit_scale", 1.0);
  sketch.set("rope.scaling.type", std::string("none"));
  sketch.set("rope.scaling.factor", 0.0);
  CHECK(sketch.error() == "");
}

TEST_CASE("damaged norms and rope factors") {
  Sketch sketch("llama");
  std::vector<float> norm(64, 1.0f);
  norm[3] = NAN;
  sketch.tensor("blk.0.ffn_norm.weight", {64}, norm);
  CHECK(has(sketch.error(), "tensor 'blk.0.ffn_norm.weight' holds nan at index 3"));
  Sketch factors("llama");
  factors.tensor("rope_freqs.weight", {8}, {1, 1, 1, 1, 0, 1, 1, 1});
  CHECK(has(factors.error(), "tensor 'rope_freqs.weight' holds 0"));
  factors.tensor("rope_freqs.weight", {7});
  CHECK(
      has(factors.error(), "tensor 'rope_freqs.weight' has shape [7], but the hyper-parameters demand [8]"));
}

TEST_CASE("any key with any value gives a plan or an error, never more") {
  const std::vector<MetaValue> values = {uint64_t{0},
                                         uint64_t{1},
                                         uint64_t{3},
                                         uint64_t{4096},
                                         uint64_t{UINT32_MAX},
                                         uint64_t{UINT64_MAX},
                                         int64_t{-1},
                                         int64_t{INT64_MIN},
                                         0.0,
                                         -0.0,
                                         1e-300,
                                         1e300,
                                         -1.5,
                                         std::nan(""),
                                         -INFINITY,
                                         true,
                                         std::string(),
                                         std::string("yarn"),
                                         std::string(100000, '\x1b'),
                                         MetaArray(std::vector<uint64_t>{}),
                                         MetaArray(std::vector<int64_t>{1, -1}),
                                         MetaArray(std::vector<uint64_t>{UINT64_MAX, 2}),
                                         MetaArray(std::vector<double>{1, 2}),
                                         MetaArray(std::vector<std::string>{"a", "b"})};
  for (const char* arch : {"llama", "mistral3", "qwen3"}) {
    for (const char* key : {"block_count",
                            "context_length",
                            "embedding_length",
                            "feed_forward_length",
                            "attention.head_count",
                            "attention.head_count_kv",
                            "attention.key_length",
                            "attention.value_length",
                            "attention.layer_norm_rms_epsilon",
                            "attention.sliding_window",
                            "attention.temperature_scale",
                            "vocab_size",
                            "rope.dimension_count",
                            "rope.freq_base",
                            "rope.scaling.type",
                            "rope.scaling.factor",
                            "rope.scale_linear",
                            "rope.scaling.original_context_length",
                            "rope.scaling.attn_factor",
                            "rope.scaling.yarn_ext_factor",
                            "rope.scaling.yarn_beta_fast",
                            "rope.scaling.yarn_beta_slow",
                            "rope.scaling.yarn_log_multiplier",
                            "expert_count",
                            "logit_scale"}) {
      for (const MetaValue& value : values) {
        for (const bool yarn : {false, true}) {
          Sketch sketch(arch);
          if (yarn) {
            sketch.set("rope.scaling.type", std::string("yarn"));
            sketch.set("rope.scaling.factor", 2.0);
          }
          sketch.set(key, value);
          CAPTURE(key);
          const std::string message = sketch.error();
          CHECK_FALSE(has(message, "\x1b"));
          CHECK(message.size() < 1000);
          if (!message.empty()) continue;
          // What is accepted is finite.
          const auto plan = sketch.plan();
          for (uint32_t i = 0; i < plan->c().n_ops; ++i) CHECK(std::isfinite(plan->c().ops[i]->scale));
          const apr_vector& table = *plan->c().vectors[op_of(*plan, "blk.0.attn_q_rope").vector[0]];
          for (uint64_t i = 0; i < table.n; ++i) CHECK(std::isfinite(table.data[i]));
        }
      }
    }
  }
}
