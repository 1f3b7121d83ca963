// Tests that need a GPU: exit 77, with the reason, where there is none.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>

#include "tests/cuda/support/harness.h"

int main(int argc, char** argv) {
  std::string reason;
  if (!apr::test::have_gpu(&reason)) {
    std::printf("skipped: %s\n", reason.c_str());
    return 77;
  }
  doctest::Context context(argc, argv);
  if (std::getenv("APR_TEST_GOLDEN") == nullptr) {
    std::printf("APR_TEST_GOLDEN is not set: golden models are skipped\n");
    context.addFilter("test-case-exclude", "golden*");
  }
  return context.run();
}
