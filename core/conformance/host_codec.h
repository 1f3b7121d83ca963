// A codec's text compiled by a C++ compiler of this machine: what a foreign library's codec does, layout by
// layout, can then be called like the functions of its table.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "apr/quant.h"

namespace apr::conformance {

struct HostCodec {
  int block, bytes, align, integer, offset, group, runs, run;
  int (*col)(int chunk, int run);
  struct Layout {
    int planes;
    std::vector<int> plane_bytes;
    // One block from its planes to [block] floats, through col(). The number of runs whose offset is not zero
    // though the codec says that it has none.
    int (*decode)(const uint8_t* const* planes, float* w);
  };
  std::vector<Layout> layouts;  // in the order of apr_codec.layouts
};

// The compiler that would be used: `wanted`, or the first of $CXX, c++, g++ and clang++ that is on the PATH;
// "" for none.
std::string find_compiler(const std::string& wanted);

struct HostCompilation {
  std::optional<HostCodec> codec;  // none: it does not compile
  std::string log;                 // of the compiler, warnings included
};
// The compiled code stays in memory until the process ends. Throws apr::Error when the compiler cannot be
// run.
HostCompilation compile_for_host(const apr_codec& codec, const std::string& compiler);

// The text of include/apr/codec.h that this program was built with.
const char* codec_contract();

}  // namespace apr::conformance
