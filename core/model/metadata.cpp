#include "core/model/metadata.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/base/error.h"
#include "core/base/format.h"

namespace apr {

namespace {

template <typename... Fs>
struct Overload : Fs... {
  using Fs::operator()...;
};
template <typename... Fs>
Overload(Fs...) -> Overload<Fs...>;

// What a value is, in a reader's words.
std::string describe(const MetaValue& value) {
  return std::visit(Overload{
                        [](uint64_t v) { return fmt::format("the unsigned integer {}", v); },
                        [](int64_t v) { return fmt::format("the integer {}", v); },
                        [](double v) { return fmt::format("the float {}", v); },
                        [](bool v) { return fmt::format("the boolean {}", v); },
                        [](const std::string& v) { return fmt::format("the string '{}'", printable(v, 48)); },
                        [](const MetaArray& array) {
                          return std::visit(Overload{
                                                [](const std::vector<uint64_t>& v) {
                                                  return fmt::format("an array of {} unsigned integers",
                                                                     v.size());
                                                },
                                                [](const std::vector<int64_t>& v) {
                                                  return fmt::format("an array of {} integers", v.size());
                                                },
                                                [](const std::vector<double>& v) {
                                                  return fmt::format("an array of {} floats", v.size());
                                                },
                                                [](const std::vector<bool>& v) {
                                                  return fmt::format("an array of {} booleans", v.size());
                                                },
                                                [](const std::vector<std::string>& v) {
                                                  return fmt::format("an array of {} strings", v.size());
                                                },
                                            },
                                            array);
                        },
                    },
                    value);
}

[[noreturn]] void wrong_type(const Metadata& meta, std::string_view key, const MetaValue& value,
                             const char* wanted) {
  throw Error("{}: metadata key '{}' is {}, not {}", meta.origin(), printable(key), describe(value), wanted);
}

uint64_t checked_uint(const Metadata& meta, std::string_view key, const MetaValue& value, uint64_t max) {
  uint64_t number = 0;
  if (const auto* u = std::get_if<uint64_t>(&value)) {
    number = *u;
  } else if (const auto* i = std::get_if<int64_t>(&value)) {
    if (*i < 0)
      throw Error("{}: metadata key '{}' is {}: it must not be negative", meta.origin(), printable(key), *i);
    number = static_cast<uint64_t>(*i);
  } else {
    wrong_type(meta, key, value, "an unsigned integer");
  }
  if (number > max) {
    throw Error("{}: metadata key '{}' is {}: at most {} makes sense", meta.origin(), printable(key), number,
                max);
  }
  return number;
}

double checked_float(const Metadata& meta, std::string_view key, const MetaValue& value) {
  if (const auto* d = std::get_if<double>(&value)) return *d;
  if (const auto* u = std::get_if<uint64_t>(&value)) return static_cast<double>(*u);
  if (const auto* i = std::get_if<int64_t>(&value)) return static_cast<double>(*i);
  wrong_type(meta, key, value, "a float");
}

// The smallest of the usual types that holds every value of a range, which may be empty.
MetaType usual_type(const uint64_t* begin, const uint64_t* end) {
  return std::all_of(begin, end, [](uint64_t v) { return v <= std::numeric_limits<uint32_t>::max(); })
             ? MetaType::U32
             : MetaType::U64;
}
MetaType usual_type(const int64_t* begin, const int64_t* end) {
  const auto fits = [](int64_t v) {
    return v >= std::numeric_limits<int32_t>::min() && v <= std::numeric_limits<int32_t>::max();
  };
  return std::all_of(begin, end, fits) ? MetaType::I32 : MetaType::I64;
}
MetaType usual_type(const double* begin, const double* end) {
  const auto fits = [](double v) {
    return !std::isfinite(v) || static_cast<double>(static_cast<float>(v)) == v;
  };
  return std::all_of(begin, end, fits) ? MetaType::F32 : MetaType::F64;
}

MetaType usual_type(const MetaValue& value) {
  return std::visit(Overload{
                        [](const auto& number) { return usual_type(&number, &number + 1); },
                        [](bool) { return MetaType::Bool; },
                        [](const std::string&) { return MetaType::String; },
                        [](const MetaArray& array) {
                          return std::visit(
                              Overload{
                                  [](const auto& numbers) {
                                    return usual_type(numbers.data(), numbers.data() + numbers.size());
                                  },
                                  [](const std::vector<bool>&) { return MetaType::Bool; },
                                  [](const std::vector<std::string>&) { return MetaType::String; },
                              },
                              array);
                        },
                    },
                    value);
}

bool fits(uint64_t value, MetaType stored) {
  switch (stored) {
    case MetaType::U8:
      return value <= std::numeric_limits<uint8_t>::max();
    case MetaType::U16:
      return value <= std::numeric_limits<uint16_t>::max();
    case MetaType::U32:
      return value <= std::numeric_limits<uint32_t>::max();
    case MetaType::U64:
      return true;
    case MetaType::I8:
    case MetaType::I16:
    case MetaType::I32:
    case MetaType::I64:
    case MetaType::F32:
    case MetaType::F64:
    case MetaType::Bool:
    case MetaType::String:
    case MetaType::Array:
      return false;
  }
  return false;
}

template <typename Int>
bool in_range(int64_t value) {
  return value >= std::numeric_limits<Int>::min() && value <= std::numeric_limits<Int>::max();
}

bool fits(int64_t value, MetaType stored) {
  switch (stored) {
    case MetaType::I8:
      return in_range<int8_t>(value);
    case MetaType::I16:
      return in_range<int16_t>(value);
    case MetaType::I32:
      return in_range<int32_t>(value);
    case MetaType::I64:
      return true;
    case MetaType::U8:
    case MetaType::U16:
    case MetaType::U32:
    case MetaType::U64:
    case MetaType::F32:
    case MetaType::F64:
    case MetaType::Bool:
    case MetaType::String:
    case MetaType::Array:
      return false;
  }
  return false;
}

// A float may lose digits in f32, but must not become infinite.
bool fits(double value, MetaType stored) {
  return stored == MetaType::F64 ||
         (stored == MetaType::F32 && (!std::isfinite(value) || std::isfinite(static_cast<float>(value))));
}
bool fits(bool, MetaType stored) { return stored == MetaType::Bool; }
bool fits(const std::string&, MetaType stored) { return stored == MetaType::String; }
template <typename T>
bool fits(const std::vector<T>& values, MetaType stored) {
  // An empty array has no value to check, so its kind is checked with a value that fits every width.
  return fits(T{}, stored) &&
         std::all_of(values.begin(), values.end(), [&](const T& v) { return fits(v, stored); });
}
bool fits(const MetaArray& array, MetaType stored) {
  return std::visit([&](const auto& values) { return fits(values, stored); }, array);
}
bool fits(const MetaValue& value, MetaType stored) {
  return std::visit([&](const auto& v) { return fits(v, stored); }, value);
}

}  // namespace

std::string_view name(MetaType type) {
  switch (type) {
    case MetaType::U8:
      return "u8";
    case MetaType::I8:
      return "i8";
    case MetaType::U16:
      return "u16";
    case MetaType::I16:
      return "i16";
    case MetaType::U32:
      return "u32";
    case MetaType::I32:
      return "i32";
    case MetaType::F32:
      return "f32";
    case MetaType::Bool:
      return "bool";
    case MetaType::String:
      return "string";
    case MetaType::Array:
      return "array";
    case MetaType::U64:
      return "u64";
    case MetaType::I64:
      return "i64";
    case MetaType::F64:
      return "f64";
  }
  throw Error("internal error: {} is not a MetaType", static_cast<uint32_t>(type));
}

void Metadata::add(std::string key, MetaValue value) {
  const MetaType stored = usual_type(value);
  add(std::move(key), std::move(value), stored);
}

void Metadata::add(std::string key, MetaValue value, MetaType stored) {
  if (!fits(value, stored)) {
    throw Error("{}: metadata key '{}' is {}: it cannot be stored as {}", origin_, printable(key),
                describe(value), name(stored));
  }
  const auto [slot, is_new] = index_.try_emplace(key, Slot{entries_.size(), stored});
  if (!is_new) throw Error("{}: metadata key '{}' appears twice", origin_, printable(key));
  entries_.emplace_back(std::move(key), std::move(value));
}

void Metadata::set(std::string key, MetaValue value) {
  const auto slot = index_.find(std::string_view(key));
  if (slot == index_.end()) return add(std::move(key), std::move(value));
  slot->second.stored = usual_type(value);
  entries_[slot->second.entry].second = std::move(value);
}

void Metadata::erase(std::string_view key) {
  const auto slot = index_.find(key);
  if (slot == index_.end()) return;
  const size_t gone = slot->second.entry;
  index_.erase(slot);
  entries_.erase(entries_.begin() + static_cast<std::ptrdiff_t>(gone));
  for (auto& [unused, other] : index_) other.entry -= other.entry > gone ? 1 : 0;
}

MetaType Metadata::stored_type(std::string_view key) const {
  const auto slot = index_.find(key);
  if (slot == index_.end()) throw Error("{}: metadata key '{}' is missing", origin_, printable(key));
  return slot->second.stored;
}

const MetaValue* Metadata::find(std::string_view key) const {
  const auto slot = index_.find(key);
  return slot == index_.end() ? nullptr : &entries_[slot->second.entry].second;
}

const MetaValue& Metadata::require(std::string_view key) const {
  const MetaValue* value = find(key);
  if (value == nullptr) {
    throw Error("{}: metadata key '{}' is missing; the file was converted without it", origin_,
                printable(key));
  }
  return *value;
}

uint64_t Metadata::get_uint(std::string_view key, uint64_t max) const {
  return checked_uint(*this, key, require(key), max);
}

double Metadata::get_float(std::string_view key) const { return checked_float(*this, key, require(key)); }

bool Metadata::get_bool(std::string_view key) const {
  const MetaValue& value = require(key);
  if (const auto* b = std::get_if<bool>(&value)) return *b;
  wrong_type(*this, key, value, "a boolean");
}

const std::string& Metadata::get_string(std::string_view key) const {
  const MetaValue& value = require(key);
  if (const auto* s = std::get_if<std::string>(&value)) return *s;
  wrong_type(*this, key, value, "a string");
}

const std::vector<std::string>& Metadata::get_strings(std::string_view key) const {
  const MetaValue& value = require(key);
  if (const auto* array = std::get_if<MetaArray>(&value)) {
    if (const auto* strings = std::get_if<std::vector<std::string>>(array)) return *strings;
  }
  wrong_type(*this, key, value, "an array of strings");
}

std::vector<double> Metadata::get_floats(std::string_view key) const {
  const MetaValue& value = require(key);
  if (const auto* array = std::get_if<MetaArray>(&value)) {
    if (const auto* d = std::get_if<std::vector<double>>(array)) return *d;
    if (const auto* u = std::get_if<std::vector<uint64_t>>(array)) return {u->begin(), u->end()};
    if (const auto* i = std::get_if<std::vector<int64_t>>(array)) return {i->begin(), i->end()};
  }
  wrong_type(*this, key, value, "an array of floats");
}

std::vector<int64_t> Metadata::get_ints(std::string_view key) const {
  const MetaValue& value = require(key);
  if (const auto* array = std::get_if<MetaArray>(&value)) {
    if (const auto* i = std::get_if<std::vector<int64_t>>(array)) return *i;
    if (const auto* u = std::get_if<std::vector<uint64_t>>(array)) {
      for (size_t at = 0; at < u->size(); ++at) {
        if ((*u)[at] > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
          throw Error("{}: metadata key '{}': element {} is {}: too large", origin_, printable(key), at,
                      (*u)[at]);
        }
      }
      return {u->begin(), u->end()};
    }
  }
  wrong_type(*this, key, value, "an array of integers");
}

std::vector<bool> Metadata::get_bools(std::string_view key) const {
  const MetaValue& value = require(key);
  if (const auto* array = std::get_if<MetaArray>(&value)) {
    if (const auto* bools = std::get_if<std::vector<bool>>(array)) return *bools;
  }
  wrong_type(*this, key, value, "an array of booleans");
}

std::optional<uint64_t> Metadata::find_uint(std::string_view key, uint64_t max) const {
  return has(key) ? std::optional(get_uint(key, max)) : std::nullopt;
}
std::optional<double> Metadata::find_float(std::string_view key) const {
  return has(key) ? std::optional(get_float(key)) : std::nullopt;
}
std::optional<bool> Metadata::find_bool(std::string_view key) const {
  return has(key) ? std::optional(get_bool(key)) : std::nullopt;
}
std::optional<std::string> Metadata::find_string(std::string_view key) const {
  return has(key) ? std::optional(get_string(key)) : std::nullopt;
}

}  // namespace apr
