// That every public header is among those compiled alone; the compilation itself is the rest of the test.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <filesystem>
#include <set>
#include <string>

#include "apr/backend.h"

TEST_CASE("no public header is left out") {
  // Those of tests/headers/meson.build. derived.inl and lanes.inl are no headers: some of them include these.
  const std::set<std::string> compiled = {"abi.h",
                                          "backend.h",
                                          "codec.h",
                                          "fit.hpp",
                                          "fit_affine.hpp",
                                          "small_floats.hpp",
                                          "superblock.hpp",
                                          "superblock_affine.hpp",
                                          "format.hpp",
                                          "plan.h",
                                          "quant.h",
                                          "quantize.hpp",
                                          "rules.hpp",
                                          "cpu/avx2.hpp",
                                          "cpu/avx512.hpp",
                                          "cpu/k_scales.hpp",
                                          "cpu/portable.hpp",
                                          "cpu/lanes.hpp",
                                          "cpu/target.hpp"};
  std::set<std::string> found;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(APR_TEST_HEADER_DIR))
    if (entry.is_regular_file() && entry.path().extension() != ".inl")
      found.insert(std::filesystem::relative(entry.path(), APR_TEST_HEADER_DIR).string());
  CHECK(found == compiled);
}

TEST_CASE("structs of the C ABI begin with their size") {
  CHECK(offsetof(apr_error, struct_size) == 0);
  CHECK(offsetof(apr_plugin, struct_size) == 0);
  CHECK(offsetof(apr_quant_format, struct_size) == 0);
  CHECK(offsetof(apr_cpu_gemv, struct_size) == 0);
  CHECK(offsetof(apr_cpu_kernels, struct_size) == 0);
  CHECK(offsetof(apr_codec, struct_size) == 0);
  CHECK(offsetof(apr_layout, struct_size) == 0);
  CHECK(offsetof(apr_plan, struct_size) == 0);
  CHECK(offsetof(apr_op, struct_size) == 0);
  CHECK(offsetof(apr_weight, struct_size) == 0);
  CHECK(offsetof(apr_backend, struct_size) == 0);
}
