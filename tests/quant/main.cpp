// test_quant LIBRARY... [doctest options]      the conformance tests over every format of the plugin
// libraries test_quant LIBRARY... --bench [NAME...]      times every kernel instead, on one core: GB/s of
// packed weights
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <exception>

#include "bench.h"
#include "formats_under_test.h"

int main(int argc, char** argv) {
  bool bench = false;
  std::vector<std::string> names;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--bench") {
      bench = true;
    } else if (argument.size() > 3 && argument.ends_with(".so")) {
      try {
        apr::test::add_plugin(argument);
      } catch (const std::exception& e) {
        std::fprintf(stderr, "test_quant: %s\n", e.what());
        return 1;
      }
    } else if (bench) {
      names.push_back(argument);
    }
  }
  if (apr::test::formats().empty()) {
    std::fprintf(stderr, "test_quant: give at least one plugin library (a path that ends in .so)\n");
    return 2;
  }
  if (bench) return apr::test::run_benchmarks(names);
  doctest::Context context(argc, argv);
  return context.run();
}
