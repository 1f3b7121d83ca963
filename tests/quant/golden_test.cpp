// The tensors of the golden models through the formats: every type has a plugin, sizes agree, every block is
// valid, and the weights are of the size that the files are made with. Models: tiny-*.gguf in the folder that
// APR_TEST_GOLDEN names; exits 77 without it.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>

#include "core/model/model.h"
#include "formats_under_test.h"

namespace {
std::filesystem::path folder;
}

TEST_CASE("tensors of the golden models") {
  int models = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string file = entry.path().filename().string();
    if (!file.starts_with("tiny") || entry.path().extension() != ".gguf") continue;
    CAPTURE(file);
    ++models;
    const apr::Model model = apr::open_gguf(entry.path().string());
    for (const apr::Tensor& tensor : model.tensors) {
      CAPTURE(tensor.name);
      const apr_quant_format* format = apr::test::find_format(tensor.format);
      REQUIRE_MESSAGE(format != nullptr, "no given library provides " << tensor.format);
      REQUIRE(tensor.k() % format->block_elements == 0);
      CHECK(tensor.bytes == tensor.n() * apr::test::row_bytes(*format, tensor.k()));
      apr::test::Message message;
      CHECK_MESSAGE(format->validate(tensor.data, tensor.n(), tensor.k(), &message) == APR_OK,
                    message.text());
      std::vector<float> w(tensor.elements());
      format->dequantize(tensor.data, tensor.n(), tensor.k(), w.data());
      double squares = 0;
      for (const float v : w) squares += double{v} * v;
      const double rms = std::sqrt(squares / static_cast<double>(w.size()));
      if (tensor.name.ends_with("norm.weight")) {
        CHECK(rms == doctest::Approx(1.0).epsilon(0.1));
      } else if (tensor.name.ends_with(".bias")) {
        CHECK(rms == doctest::Approx(0.1).epsilon(0.3));
      } else {
        CHECK(rms == doctest::Approx(0.02).epsilon(0.15));
      }
    }
  }
  CHECK(models > 0);
}

int main(int argc, char** argv) {
  const char* golden = std::getenv("APR_TEST_GOLDEN");
  if (!golden || !*golden) {
    std::puts("skipped: APR_TEST_GOLDEN names no folder of golden models");
    return 77;
  }
  folder = golden;
  try {
    for (int i = 1; i < argc; ++i)
      if (std::string(argv[i]).ends_with(".so")) apr::test::add_plugin(argv[i]);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "test_quant_golden: %s\n", e.what());
    return 1;
  }
  doctest::Context context(argc, argv);
  return context.run();
}
