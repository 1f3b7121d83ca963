// libFuzzer target: any bytes either give apr::Error or a model of which everything can be read. Build with
// clang:
//   CC=clang CXX=clang++ meson setup build-fuzz -Db_sanitize=address,undefined -Db_lundef=false
//   ninja -C build-fuzz tests/model/fuzz_gguf && build-fuzz/tests/model/fuzz_gguf -max_total_time=180
// No corpus is needed: an input too short to be a file is replaced by the sample model.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>

#include "core/base/error.h"
#include "core/model/gguf_parse.h"
#include "tests/model/read_everything.h"
#include "tests/model/sample_model.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

// libFuzzer's own mutations, on the sample where there is nothing yet, and with the magic kept in most cases:
// otherwise nearly every input would end at the fourth byte.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  static const auto sample = apr_test::sample_file();
  if (size < 24 && max_size >= sample.size()) {
    std::memcpy(data, sample.data(), sample.size());
    size = sample.size();
  }
  size = LLVMFuzzerMutate(data, size, max_size);
  if (seed % 16 != 0) std::memcpy(data, "GGUF\3\0\0\0", std::min<size_t>(size, 8));
  return size;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static volatile uint64_t sink = 0;  // so that the reads are not optimised away
  const auto bytes = std::as_bytes(std::span(data, size));
  try {
    sink = sink + apr_test::read_everything(apr::parse_gguf(bytes, "fuzzed"), bytes);
  } catch (const apr::Error&) {
    // A refusal is what most inputs deserve. Any other exception ends the fuzzer.
  }
  return 0;
}
