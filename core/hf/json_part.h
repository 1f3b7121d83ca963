// A part of a JSON file that knows where it is, and complains of what nobody looked at. Private to core/hf.
#pragma once

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "core/base/error.h"
#include "core/base/format.h"

namespace apr {

class JsonPart {
 public:
  // where: "tokenizer.json: model"
  JsonPart(const nlohmann::json& value, std::string where) : value_(&value), where_(std::move(where)) {}

  const nlohmann::json& json() const { return *value_; }
  const std::string& where() const { return where_; }
  [[noreturn]] void fail(const std::string& what) const {
    throw Error("{}{}{}", where_, where_.ends_with(": ") ? "" : ": ", what);
  }

  // Missing and null are the same in these files.
  bool null() const { return value_->is_null(); }
  JsonPart part(const char* key) const {
    static const nlohmann::json kNull;
    const auto it = value_->is_object() ? value_->find(key) : value_->end();
    return {it == value_->end() ? kNull : *it, where_ + (where_.ends_with(": ") ? "" : ".") + key};
  }
  JsonPart element(size_t i) const { return {(*value_)[i], fmt::format("{}[{}]", where_, i)}; }
  size_t size() const {
    if (!value_->is_array()) fail("a list is needed");
    return value_->size();
  }

  // Every key must be one of these.
  void only(std::initializer_list<std::string_view> keys) const {
    if (!value_->is_object()) fail("an object is needed");
    for (const auto& [key, unused] : value_->items()) {
      bool known = false;
      for (const std::string_view each : keys) known = known || each == key;
      if (!known) fail(fmt::format("'{}' is not understood by this program", printable(key)));
    }
  }
  std::string text() const {
    if (!value_->is_string()) fail("a text is needed");
    return value_->get<std::string>();
  }
  std::string text_or(const char* fallback) const { return null() ? fallback : text(); }
  bool flag_or(bool fallback) const {
    if (null()) return fallback;
    if (!value_->is_boolean()) fail("true or false is needed");
    return value_->get<bool>();
  }
  uint64_t count() const {
    if (!value_->is_number_unsigned()) fail("a whole number from 0 is needed");
    return value_->get<uint64_t>();
  }

 private:
  const nlohmann::json* value_;
  std::string where_;
};

}  // namespace apr
