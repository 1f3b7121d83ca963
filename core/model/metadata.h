// Typed key/value metadata of a model file, as GGUF defines it
// (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). Every getter names the key, the file and the
// types in its error; a missing key is never replaced by a guess: callers that have a documented default pass
// it to the get_..._or() of the type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace apr {

using MetaArray = std::variant<std::vector<uint64_t>,  // every unsigned integer type
                               std::vector<int64_t>,   // every signed integer type
                               std::vector<double>,    // f32, f64
                               std::vector<bool>, std::vector<std::string>>;
using MetaValue = std::variant<uint64_t, int64_t, double, bool, std::string, MetaArray>;

// The type of a value, or of an array's elements, as GGUF numbers them. Values are widened when they are
// read, so this is kept beside them: a writer must give other readers the very type that they look for.
enum class MetaType : uint32_t {
  U8 = 0,
  I8 = 1,
  U16 = 2,
  I16 = 3,
  U32 = 4,
  I32 = 5,
  F32 = 6,
  Bool = 7,
  String = 8,
  Array = 9,
  U64 = 10,
  I64 = 11,
  F64 = 12,
};
std::string_view name(MetaType type);  // "u8", "string", ...

class Metadata {
 public:
  // The name of the file (for errors).
  explicit Metadata(std::string origin = "model") : origin_(std::move(origin)) {}

  const std::string& origin() const { return origin_; }
  // Keys in file order; a key appears once (add() throws on a second one).
  const std::vector<std::pair<std::string, MetaValue>>& entries() const { return entries_; }
  // The stored type becomes what writers usually choose: u32, i32 and f32 where every value fits, else the
  // 64-bit type.
  void add(std::string key, MetaValue value);
  // As above with the stored type given (an array's: its elements'); throws where a value does not fit it.
  void add(std::string key, MetaValue value, MetaType stored);
  // Replaces the value in its place, or adds it at the end.
  void set(std::string key, MetaValue value);
  void erase(std::string_view key);  // nothing happens when there is none
  // Of an existing key: the value's type, or its elements' type for an array. Throws when the key is missing.
  MetaType stored_type(std::string_view key) const;
  const MetaValue* find(std::string_view key) const;
  bool has(std::string_view key) const { return find(key) != nullptr; }

  // Required values: throw apr::Error when missing, of another type, or out of range.
  // Integers of either signedness are accepted where the value fits.
  uint64_t get_uint(std::string_view key, uint64_t max) const;
  double get_float(std::string_view key) const;  // integers are accepted
  bool get_bool(std::string_view key) const;
  const std::string& get_string(std::string_view key) const;
  const std::vector<std::string>& get_strings(std::string_view key) const;
  std::vector<double> get_floats(std::string_view key) const;
  std::vector<int64_t> get_ints(std::string_view key) const;
  std::vector<bool> get_bools(std::string_view key) const;

  // Optional values: nullopt when missing, still an error when present with another type.
  std::optional<uint64_t> find_uint(std::string_view key, uint64_t max) const;
  std::optional<double> find_float(std::string_view key) const;
  std::optional<bool> find_bool(std::string_view key) const;
  std::optional<std::string> find_string(std::string_view key) const;

  // For documented defaults: fallback when the key is missing, still an error when present with another type.
  uint64_t get_uint_or(std::string_view key, uint64_t max, uint64_t fallback) const {
    return find_uint(key, max).value_or(fallback);
  }
  double get_float_or(std::string_view key, double fallback) const {
    return find_float(key).value_or(fallback);
  }
  bool get_bool_or(std::string_view key, bool fallback) const { return find_bool(key).value_or(fallback); }
  std::string get_string_or(std::string_view key, std::string fallback) const {
    return find_string(key).value_or(std::move(fallback));
  }

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  struct Slot {
    size_t entry;     // index into entries_
    MetaType stored;  // as stored_type() gives it
  };
  const MetaValue& require(std::string_view key) const;

  std::string origin_;
  std::vector<std::pair<std::string, MetaValue>> entries_;
  // Files with a hostile number of keys must not make duplicate detection quadratic.
  std::unordered_map<std::string, Slot, Hash, std::equal_to<>> index_;
};

}  // namespace apr
