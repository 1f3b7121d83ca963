// A small model, made in memory, with something of everything that a GGUF header can hold. The corruption
// test and the fuzzer start from it.
#pragma once

#include <cstddef>
#include <vector>

#include "core/model/gguf_writer.h"
#include "core/model/metadata.h"

namespace apr_test {

// Every metadata type, alone and in an array.
apr::Metadata sample_metadata();
// Six tensors: f32, q4_k, q8_0 with three dims, bf16, a numberless well-known format, and an extension's.
std::vector<apr::GgufTensor> sample_tensors();
// The whole file; the data's bytes count up, modulo 251.
std::vector<std::byte> sample_file();

}  // namespace apr_test
