#include "tests/fuzz/mutate.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <random>

namespace apr_test {

namespace {

// Zero, small sizes, the ends of the integer types and what overflows when it is multiplied by a block's or an
// element's size; read as floats: NaN, infinities, denormals and the largest numbers.
constexpr uint64_t kAbsurd[] = {0,
                                1,
                                2,
                                3,
                                4,
                                7,
                                31,
                                33,
                                0x7F,
                                0x80,
                                0xFF,
                                0x100,
                                0x7FFF,
                                0xFFFF,
                                0x10000,
                                0x7FFFFFFF,
                                0x80000000,
                                0xFFFFFFFF,
                                0x7F800000,
                                0xFF800000,
                                0x7FC00000,
                                0x7F7FFFFF,
                                0x00000001'00000000,
                                uint64_t{1} << 40,
                                uint64_t{1} << 58,
                                uint64_t{1} << 61,
                                0x7FF0000000000000,
                                0x7FFFFFFFFFFFFFFF,
                                0x8000000000000000,
                                0xFFFFFFFFFFFFFFE0,
                                0xFFFFFFFFFFFFFFFF};

void put(std::vector<std::byte>& file, const Field& field, uint64_t value) {
  std::memcpy(file.data() + field.at, &value, std::min<size_t>(field.width, sizeof value));
}

bool holds(const Field& field, uint64_t value) {
  return field.width <= 8 && (field.width == 8 || value >> (8 * field.width) == 0);
}

// What terminals, UTF-8 decoders, file names and format strings take badly.
constexpr const char* kHostile[] = {"\x1b[2J", "\xff\xfe", "\xed\xa0\x80",     "\n",         "%s%n",
                                    "{}",      "../../",   "\xf4\x90\x80\x80", "<|im_end|>", "\xe2\x96\x81"};

class Damage {
 public:
  Damage(const std::vector<std::byte>& file, const Fields& fields, uint64_t seed)
      : file_(file), fields_(fields), random_(seed), values_only_(below(2) == 0) {}

  std::vector<std::byte> run() {
    for (uint64_t n = 1 + below(3); n > 0; --n) one();
    return std::move(file_);
  }

 private:
  uint64_t below(uint64_t bound) { return bound == 0 ? 0 : random_() % bound; }
  const Field& any_field() { return fields_.list[below(fields_.list.size())]; }
  bool whole(size_t at, size_t bytes) const { return at + bytes <= file_.size(); }

  // Arrays have most of the fields; one that is counted alone should come up as often as the others.
  const Field& any_kind() {
    constexpr FieldKind kValues[] = {FieldKind::Number, FieldKind::Number, FieldKind::Element,
                                     FieldKind::Text};
    const FieldKind kind = values_only_
                               ? kValues[below(std::size(kValues))]
                               : static_cast<FieldKind>(below(static_cast<uint64_t>(FieldKind::Offset) + 1));
    const size_t from = below(fields_.list.size());
    for (size_t i = 0; i < fields_.list.size(); ++i) {
      const Field& field = fields_.list[(from + i) % fields_.list.size()];
      if (field.kind == kind) return field;
    }
    return any_field();
  }

  void one() {
    switch (below(values_only_ ? 7 : 10)) {
      case 0:
      case 1:
      case 2:
      case 3: {
        const Field& field = any_kind();
        if (whole(field.at, field.width)) put(file_, field, kAbsurd[below(std::size(kAbsurd))]);
        return;
      }
      case 4: {  // a neighbour's value: plausible, and wrong
        const Field &from = any_kind(), &to = any_kind();
        const size_t width = std::min(from.width, to.width);
        if (whole(from.at, width) && whole(to.at, width))
          std::memmove(file_.data() + to.at, file_.data() + from.at, width);
        return;
      }
      case 5: {
        const Field& field = any_kind();
        const char* text = kHostile[below(std::size(kHostile))];
        const size_t width = std::min(field.width, std::strlen(text));
        if (whole(field.at, width)) std::memcpy(file_.data() + field.at, text, width);
        return;
      }
      case 6:
        return flip(fields_.header_bytes, file_.size());
      case 7:
        return flip(0, fields_.header_bytes);
      case 8:
        return file_.resize(below(4) == 0 ? below(file_.size() + 1) : below(fields_.header_bytes));
      default: {
        const size_t length = below(64), from = below(file_.size()), to = below(fields_.header_bytes);
        if (whole(from, length) && whole(to, length))
          std::memmove(file_.data() + to, file_.data() + from, length);
        return;
      }
    }
  }

  void flip(size_t begin, size_t end) {
    end = std::min(end, file_.size());
    for (uint64_t n = 1 + below(16); n > 0 && begin < end; --n) {
      std::byte& byte = file_[begin + below(end - begin)];
      byte =
          below(2) == 0 ? static_cast<std::byte>(random_()) : byte ^ static_cast<std::byte>(1U << below(8));
    }
  }

  std::vector<std::byte> file_;
  const Fields& fields_;
  std::mt19937_64 random_;
  // Of half the files the structure stays whole, or most would end in the parser.
  bool values_only_;
};

}  // namespace

std::vector<std::byte> damaged(const std::vector<std::byte>& file, const Fields& fields, uint64_t seed) {
  return Damage(file, fields, seed).run();
}

void every_absurd_field(const std::vector<std::byte>& file, const Fields& fields, uint64_t step,
                        const std::function<void(const std::vector<std::byte>&)>& visit) {
  uint64_t number = 0;
  for (const Field& field : fields.list) {
    for (const uint64_t value : kAbsurd) {
      if (!holds(field, value) || number++ % step != 0) continue;
      std::vector<std::byte> copy = file;
      put(copy, field, value);
      visit(copy);
    }
    if (number++ % step != 0) continue;
    visit({file.begin(), file.begin() + static_cast<std::ptrdiff_t>(field.at)});
  }
}

}  // namespace apr_test
