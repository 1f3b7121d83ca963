#include "core/model/gguf_format.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/base/format.h"

namespace apr {

uint64_t gguf_packed_bytes(std::string_view where, const std::vector<uint64_t>& dims, std::string_view format,
                           QuantGeometry geometry) {
  if (dims.empty() || dims.size() > kGgufMaxDims) {
    throw Error("{}: it has {} dimensions; 1 to {} are possible", where, dims.size(), kGgufMaxDims);
  }
  uint64_t elements = 1;
  for (const uint64_t size : dims) {
    if (size == 0) throw Error("{}: one of its dimensions is 0: [{}]", where, joined(dims));
    if (__builtin_mul_overflow(elements, size, &elements)) {
      throw Error("{}: its dimensions [{}] multiply to more than 2^64 elements", where, joined(dims));
    }
  }
  if (dims[0] % geometry.block_elements != 0) {
    throw Error(
        "{}: its rows have {} columns, which is not a multiple of {}'s block of {}; the type or the shape "
        "that the file declares is wrong",
        where, dims[0], printable(format), geometry.block_elements);
  }
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(elements / geometry.block_elements, uint64_t{geometry.block_bytes}, &bytes)) {
    throw Error("{}: its dimensions [{}] need more than 2^64 bytes", where, joined(dims));
  }
  return bytes;
}

void check_gguf_name(std::string_view where, std::string_view what, std::string_view name) {
  if (name.empty()) throw Error("{}: the {} is empty", where, what);
  if (name.size() > kGgufMaxNameBytes) {
    throw Error("{}: the {} has {} bytes; at most {} are possible", where, what, name.size(),
                kGgufMaxNameBytes);
  }
  const bool control = std::any_of(name.begin(), name.end(),
                                   [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; });
  if (control) throw Error("{}: the {} '{}' holds control characters", where, what, printable(name));
}

void check_gguf_alignment(std::string_view origin, uint64_t alignment) {
  if (!std::has_single_bit(alignment) || alignment < kGgufMinAlignment || alignment > kGgufMaxAlignment) {
    throw Error("{}: {} is {}; it must be a power of two from {} to {}", origin, kGgufAlignmentKey, alignment,
                kGgufMinAlignment, kGgufMaxAlignment);
  }
}

void check_gguf_extension(std::string_view origin, std::string_view name, QuantGeometry geometry) {
  // Larger blocks than these are no blocks; the bound also keeps block arithmetic far from overflow.
  constexpr uint32_t kMaxBlock = 1U << 20;
  if (geometry.block_elements == 0 || geometry.block_elements > kMaxBlock || geometry.block_bytes == 0 ||
      geometry.block_bytes > kMaxBlock) {
    throw Error("{}: extension format '{}' has blocks of {} elements in {} bytes; both must be 1 to {}",
                origin, printable(name), geometry.block_elements, geometry.block_bytes, kMaxBlock);
  }
  if (const auto known = parse_qtype(name)) {
    if (apr::name(*known) != name || gguf_type(*known)) {
      throw Error("{}: '{}' cannot be an extension format: it is the name of a well-known one", origin,
                  printable(name));
    }
    const auto fixed = apr::geometry(*known);
    if (fixed &&
        (fixed->block_elements != geometry.block_elements || fixed->block_bytes != geometry.block_bytes)) {
      throw Error("{}: format '{}' has blocks of {} elements in {} bytes, but the file says {} in {}", origin,
                  name, fixed->block_elements, fixed->block_bytes, geometry.block_elements,
                  geometry.block_bytes);
    }
    return;
  }
  const size_t dot = name.find('.');
  const bool characters = std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
  });
  if (!characters || name.size() > 64 || dot == std::string_view::npos || dot == 0 ||
      dot + 1 == name.size() || name.find('.', dot + 1) != std::string_view::npos) {
    throw Error(
        "{}: '{}' is no name for an extension format; it must be vendor.format, of a-z 0-9 _ -, at most 64 "
        "bytes",
        origin, printable(name));
  }
}

}  // namespace apr
