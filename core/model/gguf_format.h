// What the GGUF reader and writer share: the format's constants and the rules that both check.
// Source of the format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include <bit>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/dispatch/weight_quant_type.h"

namespace apr {

static_assert(std::endian::native == std::endian::little,
              "GGUF files are read and written in place as little-endian");

constexpr std::string_view kGgufMagic = "GGUF";
constexpr uint32_t kGgufOldestVersion = 2;  // v1 had 32-bit counts and lengths
constexpr uint32_t kGgufVersion = 3;
constexpr std::string_view kGgufAlignmentKey = "general.alignment";
constexpr uint32_t kGgufDefaultAlignment = 32;  // bytes, where general.alignment is absent
// The specification asks for a multiple of 8; kernels rely on it. The upper end is a huge page.
constexpr uint32_t kGgufMinAlignment = 8;
constexpr uint32_t kGgufMaxAlignment = 2U << 20;
constexpr uint32_t kGgufMaxDims = 4;
constexpr uint64_t kGgufMaxNameBytes = 65535;  // of a key (the specification's limit) and of a tensor's name

// Formats without a ggml type number: a file written by apr numbers them from here, in the order of the
// metadata arrays below. No ggml type is near this number, so other readers refuse such a tensor instead of
// misreading it.
constexpr uint32_t kGgufExtensionType = 0xA9800000;
constexpr uint32_t kGgufMaxExtensions = 4096;                                // formats in one file
constexpr std::string_view kGgufExtensionFormats = "apr.extension_formats";  // strings: "vendor.format"
constexpr std::string_view kGgufExtensionElements =
    "apr.extension_block_elements";                                            // u32 each: columns of a block
constexpr std::string_view kGgufExtensionBytes = "apr.extension_block_bytes";  // u32 each: bytes of a block

// Parts of one model, as llama.cpp's gguf-split writes them.
constexpr std::string_view kGgufSplitNo = "split.no";  // from 0
constexpr std::string_view kGgufSplitCount = "split.count";
constexpr std::string_view kGgufSplitTensors = "split.tensors.count";  // over all parts

// Throws apr::Error, with where ("FILE: tensor 'NAME'") in front, unless dims are 1 to 4 sizes, none 0, their
// product and the bytes fit 64 bits, and K (dims[0]) is a whole number of blocks. Returns the packed size in
// bytes.
uint64_t gguf_packed_bytes(std::string_view where, const std::vector<uint64_t>& dims, std::string_view format,
                           QuantGeometry geometry);

// Throws unless name has 1 to kGgufMaxNameBytes bytes and no control characters; what is "tensor name" or
// "key".
void check_gguf_name(std::string_view where, std::string_view what, std::string_view name);

// Throws unless the alignment is a power of two within the limits above.
void check_gguf_alignment(std::string_view origin, uint64_t alignment);

// Throws unless name is one that an extension may have: "vendor.format", each made of a-z 0-9 _ -, or a
// well-known format that GGUF does not number, and the geometry is possible (for the latter: the known one).
void check_gguf_extension(std::string_view origin, std::string_view name, QuantGeometry geometry);

constexpr uint64_t align_up(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

}  // namespace apr
