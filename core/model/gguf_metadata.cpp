// The metadata part of a GGUF header.
#include <algorithm>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/model/gguf_cursor.h"
#include "core/model/gguf_format.h"

namespace apr {

namespace {

MetaType checked_meta_type(uint32_t number, std::string_view key, uint64_t at, const std::string& origin) {
  if (number > static_cast<uint32_t>(MetaType::F64)) {
    throw Error("{}: metadata key '{}' has the unknown value type {} at byte {}; types 0 to 12 exist", origin,
                printable(key), number, at);
  }
  return static_cast<MetaType>(number);
}

bool checked_bool(uint8_t byte, std::string_view key, uint64_t at, const std::string& origin) {
  if (byte > 1) {
    throw Error("{}: metadata key '{}': the boolean at byte {} is {}, neither 0 nor 1", origin,
                printable(key), at, byte);
  }
  return byte == 1;
}

template <typename Stored, typename Wide, typename What>
MetaArray read_numbers(GgufCursor& cursor, uint64_t count, const What& what) {
  cursor.need_elements(count, sizeof(Stored), what);
  std::vector<Wide> values(count);
  for (Wide& value : values) value = static_cast<Wide>(cursor.read<Stored>(what));
  return values;
}

template <typename What>
MetaArray read_array(GgufCursor& cursor, MetaType type, uint64_t count, std::string_view key,
                     const std::string& origin, const What& what) {
  switch (type) {
    case MetaType::U8:
      return read_numbers<uint8_t, uint64_t>(cursor, count, what);
    case MetaType::U16:
      return read_numbers<uint16_t, uint64_t>(cursor, count, what);
    case MetaType::U32:
      return read_numbers<uint32_t, uint64_t>(cursor, count, what);
    case MetaType::U64:
      return read_numbers<uint64_t, uint64_t>(cursor, count, what);
    case MetaType::I8:
      return read_numbers<int8_t, int64_t>(cursor, count, what);
    case MetaType::I16:
      return read_numbers<int16_t, int64_t>(cursor, count, what);
    case MetaType::I32:
      return read_numbers<int32_t, int64_t>(cursor, count, what);
    case MetaType::I64:
      return read_numbers<int64_t, int64_t>(cursor, count, what);
    case MetaType::F32:
      return read_numbers<float, double>(cursor, count, what);
    case MetaType::F64:
      return read_numbers<double, double>(cursor, count, what);
    case MetaType::Bool: {
      cursor.need_elements(count, 1, what);
      std::vector<bool> values(count);
      for (uint64_t i = 0; i < count; ++i) {
        const uint64_t at = cursor.at();
        values[i] = checked_bool(cursor.read<uint8_t>(what), key, at, origin);
      }
      return values;
    }
    case MetaType::String: {
      cursor.need_elements(count, sizeof(uint64_t), what);
      std::vector<std::string> values;
      // A string object is four times the smallest stored string, so a false count must not reserve at once;
      // a vocabulary of usual size never grows.
      values.reserve(std::min<uint64_t>(count, 1U << 18));
      for (uint64_t i = 0; i < count; ++i) {
        values.emplace_back(cursor.read_string([&] { return fmt::format("element {} of {}", i, what()); }));
      }
      return values;
    }
    case MetaType::Array:
      throw Error(
          "{}: metadata key '{}' at byte {} is an array of arrays; no known key is one, and this reader does "
          "not take them",
          origin, printable(key), cursor.at());
  }
  throw Error("internal error: {} is not a MetaType", static_cast<uint32_t>(type));
}

void read_key(GgufCursor& cursor, uint64_t number, Metadata& meta, const std::string& origin) {
  const uint64_t key_at = cursor.at();
  const std::string_view key = cursor.read_string([&] { return fmt::format("metadata key {}", number); });
  check_gguf_name(fmt::format("{}: metadata key {} at byte {}", origin, number, key_at), "key", key);
  const auto what = [&] { return fmt::format("the value of metadata key '{}'", printable(key)); };

  const uint64_t type_at = cursor.at();
  MetaType type = checked_meta_type(cursor.read<uint32_t>(what), key, type_at, origin);
  MetaValue value;
  switch (type) {
    case MetaType::U8:
      value = uint64_t{cursor.read<uint8_t>(what)};
      break;
    case MetaType::U16:
      value = uint64_t{cursor.read<uint16_t>(what)};
      break;
    case MetaType::U32:
      value = uint64_t{cursor.read<uint32_t>(what)};
      break;
    case MetaType::U64:
      value = cursor.read<uint64_t>(what);
      break;
    case MetaType::I8:
      value = int64_t{cursor.read<int8_t>(what)};
      break;
    case MetaType::I16:
      value = int64_t{cursor.read<int16_t>(what)};
      break;
    case MetaType::I32:
      value = int64_t{cursor.read<int32_t>(what)};
      break;
    case MetaType::I64:
      value = cursor.read<int64_t>(what);
      break;
    case MetaType::F32:
      value = double{cursor.read<float>(what)};
      break;
    case MetaType::F64:
      value = cursor.read<double>(what);
      break;
    case MetaType::Bool: {
      const uint64_t at = cursor.at();
      value = checked_bool(cursor.read<uint8_t>(what), key, at, origin);
      break;
    }
    case MetaType::String:
      value = std::string(cursor.read_string(what));
      break;
    case MetaType::Array: {
      const uint64_t element_at = cursor.at();
      type = checked_meta_type(cursor.read<uint32_t>(what), key, element_at, origin);
      const auto count = cursor.read<uint64_t>(what);
      value = read_array(cursor, type, count, key, origin, what);
      break;
    }
  }
  meta.add(std::string(key), std::move(value), type);
}

}  // namespace

Metadata read_gguf_metadata(GgufCursor& cursor, uint64_t count, const std::string& origin) {
  Metadata meta(origin);
  for (uint64_t i = 0; i < count; ++i) read_key(cursor, i, meta, origin);
  return meta;
}

}  // namespace apr
