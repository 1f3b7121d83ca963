// Typed key/value metadata of a model file, as GGUF defines it (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
// Every getter names the key, the file and the types in its error; a missing key is never replaced by a guess: callers
// that have a documented default pass it to get_or().
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace apr {

using MetaArray = std::variant<std::vector<uint64_t>,     // every unsigned integer type
                               std::vector<int64_t>,      // every signed integer type
                               std::vector<double>,       // f32, f64
                               std::vector<bool>, std::vector<std::string>>;
using MetaValue = std::variant<uint64_t, int64_t, double, bool, std::string, MetaArray>;

class Metadata {
 public:
  // The name of the file (for errors).
  explicit Metadata(std::string origin = "model") : origin_(std::move(origin)) {}

  const std::string& origin() const { return origin_; }
  // Keys in file order; a key appears once (add() throws on a second one).
  const std::vector<std::pair<std::string, MetaValue>>& entries() const { return entries_; }
  void add(std::string key, MetaValue value);
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

  // Optional values: nullopt when missing, still an error when present with another type.
  std::optional<uint64_t> find_uint(std::string_view key, uint64_t max) const;
  std::optional<double> find_float(std::string_view key) const;
  std::optional<bool> find_bool(std::string_view key) const;
  std::optional<std::string> find_string(std::string_view key) const;

 private:
  std::string origin_;
  std::vector<std::pair<std::string, MetaValue>> entries_;
};

}  // namespace apr
