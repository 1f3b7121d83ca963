// Everything that the program does with a model file, on bytes: parse, tokenizer, chat template, plan, and steps
// on the CPU. Whatever the bytes are, each part works or throws apr::Error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/plugin/catalog.h"

namespace apr_test {

// How many inputs each part accepted: a fuzzer that never gets past the parser tests nothing else.
struct Reached {
  uint64_t inputs = 0, parsed = 0, tokenized = 0, chats = 0, planned = 0, computed = 0;
};

// The bytes need no alignment beyond 8, must outlive the call, and should be of exact size so that a sanitizer sees
// what is read beyond. Throws std::logic_error for a promise that is not kept: an error that names no file, that
// holds control characters, or that is no apr::Error at all.
void drive(std::span<const std::byte> bytes, apr::Catalog& catalog, Reached& reached);

}  // namespace apr_test
