#include "tests/fuzz/fields.h"

#include <cstdint>
#include <cstring>
#include <stdexcept>

namespace apr_test {

namespace {

constexpr uint32_t kString = 8, kArray = 9;

size_t width_of(uint32_t type) {
  constexpr size_t kWidths[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  if (type >= std::size(kWidths) || kWidths[type] == 0) throw std::logic_error("the sample is no valid GGUF");
  return kWidths[type];
}

class Walker {
 public:
  explicit Walker(std::span<const std::byte> file) : file_(file) {}

  Fields run() {
    take<uint32_t>(FieldKind::Magic);
    take<uint32_t>(FieldKind::Version);
    const auto tensors = take<uint64_t>(FieldKind::Count);
    const auto keys = take<uint64_t>(FieldKind::Count);
    for (uint64_t i = 0; i < keys; ++i) {
      string();
      value(take<uint32_t>(FieldKind::ValueType), FieldKind::Number);
    }
    for (uint64_t i = 0; i < tensors; ++i) {
      string();
      const auto dims = take<uint32_t>(FieldKind::NumDims);
      for (uint32_t d = 0; d < dims; ++d) take<uint64_t>(FieldKind::Dim);
      take<uint32_t>(FieldKind::QuantType);
      take<uint64_t>(FieldKind::Offset);
    }
    fields_.header_bytes = at_;
    return std::move(fields_);
  }

 private:
  template <typename T>
  T take(FieldKind kind) {
    T value;
    if (at_ + sizeof value > file_.size()) throw std::logic_error("the sample is no whole GGUF");
    std::memcpy(&value, file_.data() + at_, sizeof value);
    skip(sizeof value, kind);
    return value;
  }
  void skip(size_t bytes, FieldKind kind) {
    if (bytes > 0) fields_.list.push_back({at_, bytes, kind});
    at_ += bytes;
  }
  void string() { skip(take<uint64_t>(FieldKind::Length), FieldKind::Text); }
  void value(uint32_t type, FieldKind kind) {
    if (type == kString) return string();
    if (type != kArray) return skip(width_of(type), kind);
    const auto element = take<uint32_t>(FieldKind::ValueType);
    const auto count = take<uint64_t>(FieldKind::ArrayCount);
    for (uint64_t i = 0; i < count; ++i) value(element, FieldKind::Element);
  }

  std::span<const std::byte> file_;
  size_t at_ = 0;
  Fields fields_{};
};

}  // namespace

Fields find_fields(std::span<const std::byte> file) { return Walker(file).run(); }

}  // namespace apr_test
