#include "core/model/safetensors.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/model/strict_json.h"

namespace apr {

namespace {

using nlohmann::json;

constexpr uint64_t kLengthBytes = 8;               // of the header, little-endian
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the reference implementation's limit

// Bits of an element; 0: unknown.
uint64_t bits_of(std::string_view dtype) {
  constexpr std::pair<std::string_view, uint64_t> kBits[] = {
      {"F64", 64}, {"I64", 64}, {"U64", 64}, {"C64", 64},    {"F32", 32},    {"I32", 32},    {"U32", 32},
      {"F16", 16}, {"I16", 16}, {"U16", 16}, {"BF16", 16},   {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F8_E8M0", 8},
      {"I8", 8},   {"U8", 8},   {"BOOL", 8}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4", 4}};
  for (const auto& [name, bits] : kBits)
    if (name == dtype) return bits;
  return 0;
}

uint64_t number(const json& value, const std::string& where, const char* what) {
  if (value.is_number_unsigned()) return value.get<uint64_t>();
  throw Error("{}: {} must be whole numbers from 0", where, what);
}

}  // namespace

std::vector<SafeTensor> parse_safetensors(std::span<const std::byte> bytes, const std::string& path) {
  const std::string origin = printable(path, kLongPath);
  uint64_t length = 0;
  if (bytes.size() < kLengthBytes)
    throw Error("{}: {} bytes are too few for a SafeTensors file; it is cut short", origin, bytes.size());
  std::memcpy(&length, bytes.data(), kLengthBytes);
  if (length > kMaxHeaderBytes || length > bytes.size() - kLengthBytes || length < 2) {
    throw Error(
        "{}: not a whole SafeTensors file: its header would have {} bytes (2 to {} are possible), the file "
        "has {}",
        origin, length, kMaxHeaderBytes, bytes.size());
  }
  if (static_cast<char>(bytes[kLengthBytes]) != '{')
    throw Error("{}: not a SafeTensors file: its header does not begin with '{{'", origin);
  const json header = parse_json_object(bytes.subspan(kLengthBytes, length), origin + ": header");
  const std::byte* const data = bytes.data() + kLengthBytes + length;
  const uint64_t data_size = bytes.size() - kLengthBytes - length;

  struct Placed {
    SafeTensor tensor;
    uint64_t begin;
  };
  std::vector<Placed> placed;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    const std::string where = fmt::format("{}: tensor '{}'", origin, printable(name));
    if (!entry.is_object() || !entry.contains("dtype") || !entry["dtype"].is_string() ||
        !entry.contains("shape") || !entry["shape"].is_array() || !entry.contains("data_offsets") ||
        !entry["data_offsets"].is_array() || entry["data_offsets"].size() != 2) {
      throw Error("{}: its entry needs dtype, shape and two data_offsets", where);
    }
    SafeTensor tensor{name, entry["dtype"].get<std::string>(), {}, nullptr, 0};
    const uint64_t bits = bits_of(tensor.dtype);
    if (bits == 0) throw Error("{}: its dtype '{}' is unknown", where, printable(tensor.dtype));
    uint64_t elements = 1;
    for (const json& dim : entry["shape"]) {
      tensor.shape.push_back(number(dim, where, "the sizes of its shape"));
      if (__builtin_mul_overflow(elements, tensor.shape.back(), &elements) ||
          elements > std::numeric_limits<uint64_t>::max() / 64)
        throw Error("{}: its shape [{}] is beyond all memory", where, joined(tensor.shape));
    }
    const uint64_t begin = number(entry["data_offsets"][0], where, "its data_offsets");
    const uint64_t end = number(entry["data_offsets"][1], where, "its data_offsets");
    if (begin > end || end > data_size) {
      throw Error("{}: its data ({} to {}) runs past the {} bytes of data; the file is cut short or damaged",
                  where, begin, end, data_size);
    }
    tensor.bytes = end - begin;
    if (elements * bits % 8 != 0 || tensor.bytes != elements * bits / 8) {
      throw Error("{}: it has {} bytes, but {} of shape [{}] takes {}", where, tensor.bytes, tensor.dtype,
                  joined(tensor.shape), elements * bits / 8);
    }
    tensor.data = data + begin;
    placed.push_back({std::move(tensor), begin});
  }
  std::stable_sort(placed.begin(), placed.end(), [](const Placed& a, const Placed& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.tensor.bytes < b.tensor.bytes;
  });
  uint64_t expected = 0;
  std::vector<SafeTensor> tensors;
  for (Placed& one : placed) {
    if (one.begin != expected) {
      throw Error("{}: tensor '{}' begins at byte {} of the data, but the one before it ends at {}: they {}",
                  origin, printable(one.tensor.name), one.begin, expected,
                  one.begin < expected ? "overlap" : "leave a hole");
    }
    expected += one.tensor.bytes;
    tensors.push_back(std::move(one.tensor));
  }
  if (expected != data_size)
    throw Error("{}: {} bytes at the end belong to no tensor; the file is damaged", origin,
                data_size - expected);
  return tensors;
}

}  // namespace apr
